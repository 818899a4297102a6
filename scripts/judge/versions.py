#!/usr/bin/env python3
"""What this interpreter's ONNX Runtime makes of written files: whether they load, what they compute, in which operators.

usage: versions.py FILE.onnx... [--inputs INPUTS.npz] [--float FLOAT.onnx] [--samples N] [--seed N]
       versions.py --jobs JOBS.json

Every file runs at the default optimisation level and with optimisations off. INPUTS.npz has one array an input with
samples along the first axis; without it, one random sample is drawn from the declared shapes (open axes are 1 in front,
else 16; integers are 0 or 1). FLOAT.onnx, run with optimisations off, is what the file is to compute. JOBS.json is a list
of {"file", "inputs", "float", "samples"}, all but the first optional.

Prints one line of JSON a file:
  {"file", "version", "error",       why the file does not load or run at the default level, else null
   "levels_db", "levels_max",        signal-to-noise ratio in dB and largest difference between the two levels
   "float_error", "float_db",        the same against FLOAT.onnx; null without one
   "integer", "float"}               nodes of the optimised graph that compute in integers and in float: {operator: count}
Ratios are the least of all float outputs; 999 means equal and -999 not finite. Needs numpy and onnxruntime alone, of any
version from 1.17 on.
"""

import argparse
import collections
import json
import pathlib
import tempfile

import numpy as np
import onnxruntime as ort

EQUAL, BROKEN = 999.0, -999.0
DEFAULT = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
OFF = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
OPEN_AXIS = 16

INTEGER = {"ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
INTEGER_PREFIXES = ("QLinear", "QGemm", "QAttention", "QMoE")
FLOAT = {
    "Attention",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "GRU",
    "Gemm",
    "LSTM",
    "MatMul",
    "MatMulNBits",
    "MultiHeadAttention",
    "NhwcFusedConv",
    "RNN",
}
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def fields(data):
    """Number and value of every field of a protobuf message: integers, or the bytes of what has a length."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        size = number() if kind == 2 else {1: 8, 5: 4}[kind]
        yield key >> 3, data[at : at + size]
        at += size


def operators(graph):
    """Operators of the nodes of a GraphProto and of the graphs inside them (onnx.proto: GraphProto.node 1,
    NodeProto.op_type 4 and attribute 5, AttributeProto.g 6 and graphs 11)."""
    for field, node in fields(graph):
        if field != 1:
            continue
        for field, value in fields(node):
            if field == 4:
                yield bytes(value).decode()
            elif field == 5:
                for field, inner in fields(value):
                    if field in (6, 11):
                        yield from operators(inner)


def kernels(path):
    """Counts of integer and of float nodes of a written ONNX file (ModelProto.graph is field 7)."""
    data = memoryview(pathlib.Path(path).read_bytes())
    counts = collections.Counter(op for field, graph in fields(data) if field == 7 for op in operators(graph))
    integer = {op: n for op, n in sorted(counts.items()) if op in INTEGER or op.startswith(INTEGER_PREFIXES)}
    return integer, {op: n for op, n in sorted(counts.items()) if op in FLOAT}


def session(path, level, optimised=None):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def drawn(inputs, seed):
    """One random sample for every input, with the axes that it declares."""
    source = np.random.default_rng(seed)
    out = {}
    for declared in inputs:
        shape = [d if isinstance(d, int) else 1 if axis == 0 else OPEN_AXIS for axis, d in enumerate(declared.shape)]
        dtype = DTYPES[declared.type]
        whole = np.issubdtype(dtype, np.integer) or dtype is np.bool_
        out[declared.name] = (source.integers(0, 2, shape) if whole else source.normal(size=shape)).astype(dtype)[None]
    return out


def feed(inputs, data, k):
    """Sample k. A sample that lacks an axis of its input gets one of 1, where the file has its batch symbol."""
    batch = next((i.shape[0] for i in inputs if i.shape and isinstance(i.shape[0], str)), None)
    out = {}
    for declared in inputs:
        sample = np.asarray(data[declared.name][k])
        if sample.ndim < len(declared.shape):
            sample = np.expand_dims(sample, declared.shape.index(batch) if batch in declared.shape else 0)
        out[declared.name] = sample
    return out


def outputs(run, data, count):
    """Every output for all samples, flat."""
    rows = [run.run(None, feed(run.get_inputs(), data, k)) for k in range(count)]
    return [np.concatenate([np.ravel(np.asarray(row[i])) for row in rows]) for i in range(len(rows[0]))]


def apart(right, found):
    """Signal-to-noise ratio in dB and largest difference, the worst of all float outputs (of all, where none is float)."""
    ratio, largest = EQUAL, 0.0
    pairs = [(a, b) for a, b in zip(right, found) if a.dtype.kind == "f"] or list(zip(right, found))
    for a, b in pairs:
        a, b = a.astype(np.float64), b.astype(np.float64)
        if a.shape != b.shape or not np.isfinite(b).all():
            return BROKEN, None
        noise, signal = ((a - b) ** 2).sum(), (a**2).sum()
        largest = max(largest, float(np.abs(a - b).max(initial=0)))
        if noise > 0:
            ratio = min(ratio, float(10 * np.log10(signal / noise)) if signal > 0 else BROKEN)
    return ratio, largest


def samples(job, data):
    return min([job.get("samples") or 8, *map(len, data.values())])


def line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def judge(job, folder, seed=0):
    path = job["file"]
    result = {"file": path, "version": ort.__version__, "error": None, "levels_db": None, "levels_max": None}
    result.update(float_error=None, float_db=None, integer={}, float={})
    found, data = None, dict(np.load(job["inputs"])) if job.get("inputs") else None
    try:
        optimised = pathlib.Path(folder) / "optimised.onnx"
        session(path, DEFAULT, optimised)
        result["integer"], result["float"] = kernels(optimised)
        # What computes is a session as users make it, which writes nothing.
        run = session(path, DEFAULT)
        data = data or drawn(run.get_inputs(), seed)
        found = outputs(run, data, samples(job, data))
        plain = outputs(session(path, OFF), data, samples(job, data))
        result["levels_db"], result["levels_max"] = apart(plain, found)
    except Exception as error:
        result["error"] = line(error)
    if job.get("float") and data:
        try:
            right = outputs(session(job["float"], OFF), data, samples(job, data))
            if found is not None:
                result["float_db"] = apart(right, found)[0]
        except Exception as error:
            result["float_error"] = line(error)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--jobs", type=pathlib.Path)
    parser.add_argument("--inputs")
    parser.add_argument("--float")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    jobs = json.loads(args.jobs.read_text()) if args.jobs else []
    jobs += [{"file": f, "inputs": args.inputs, "float": args.float, "samples": args.samples} for f in args.files]
    if not jobs:
        parser.error("no files")
    ort.set_default_logger_severity(4)
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs:
            print(json.dumps(judge(job, folder, args.seed)), flush=True)


if __name__ == "__main__":
    main()
