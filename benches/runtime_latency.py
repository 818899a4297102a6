#!/usr/bin/env python3
"""How fast ONNX Runtime runs what qdrop writes, beside the float network and ONNX Runtime's own quantize_static.

usage: runtime_latency.py QDROP [--data DIR] [--cache DIR] [--networks NAME,...] [--rounds N] [--seconds] [--json]

QDROP is the program (target/release/qdrop). It needs scripts/judge/requirements.txt, which .ci/run installs, and the real
networks and samples of --data (default: $QDROP_SHARED/data, else ../shared/data):

    cargo build --release -p qdrop-cli
    .venv/bin/python benches/runtime_latency.py target/release/qdrop
    .venv/bin/python benches/runtime_latency.py target/release/qdrop --seconds

Files are written into --cache (default: target/latency) once for every build of QDROP: by qdrop with nearest rounding at
W8A8, W4A8 and W4A4, without refining steps, which takes long below 8 bits and changes no operator; and by quantize_static
(QDQ, per channel, int8 weights, uint8 activations, MinMax) after its preprocessing. All are calibrated on the same
CALIBRATION samples. Opsets below 13 are converted for quantize_static.

All files of a network then run in turn in this process, with one thread, at the default optimisation level, as often as
--rounds says; the least processor time counts, so that other programs disturb little. The table gives the file's size, the
milliseconds, their share of the float network's and of quantize_static's, the signal-to-noise ratio of the outputs against
the float network's on the samples that are timed (they calibrate nothing), and how many nodes of the optimised graph compute
in integers and how many convolutions and products in float.

--seconds instead gives the processor seconds (all threads) that quantizing to W8A8 takes by qdrop and by quantize_static on
equal samples: the whole run of qdrop; reading, preprocessing, calibrating and writing, without starting Python, for the
other. --json prints one line of JSON a file.
"""

import argparse
import csv
import hashlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import onnxruntime as ort
from PIL import Image

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts/judge"))
from common import image  # noqa: E402
from versions import DEFAULT, apart, kernels  # noqa: E402

CALIBRATION = 32
BATCH = 16
BITS = [(8, 8), (4, 8), (4, 4)]
ORT, FLOAT = "quantize_static", "float"


def letterbox(path):
    """YOLOX: 416 x 416, the picture at the top left on 114, BGR, 0 to 255."""
    picture = Image.open(path).convert("RGB")
    ratio = min(416 / picture.width, 416 / picture.height)
    size = int(picture.width * ratio), int(picture.height * ratio)
    values = np.full((416, 416, 3), 114, np.float32)
    values[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray(values[..., ::-1].transpose(2, 0, 1))


def pictures(folder, pattern, prepare, name):
    def load(first, count):
        files = sorted((folder / pattern.partition("/")[0]).glob(pattern.partition("/")[2]))[first : first + count]
        if len(files) < count:
            sys.exit(f"error: {folder / pattern} holds fewer than {first + count} images")
        return {name: np.stack([prepare(f) for f in files])}

    return load


def tokens(folder, length):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=length)
    tokenizer.enable_truncation(length)
    return tokenizer


def encoded(rows):
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {k: np.array([getattr(r, v) for r in rows], np.int64) for k, v in columns.items()}


def sentences(folder):
    def load(first, count):
        with open(folder / "SST-2/train.tsv", newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1 + first : 1 + first + count]
        return encoded(tokens(folder, 128).encode_batch([row[0] for row in rows]))

    return load


def windows(folder):
    """Windows of 384 tokens: the first question about a passage and the beginning of that passage."""

    def load(first, count):
        tokenizer, pairs = tokens(folder, 384), []
        tokenizer.enable_truncation(384, strategy="only_second")
        for article in json.loads((folder / "squad_train.json").read_text())["data"]:
            for paragraph in article["paragraphs"]:
                pairs += [(paragraph["qas"][0]["question"], paragraph["context"])]
        return encoded(tokenizer.encode_batch(pairs[first : first + count]))

    return load


def networks(data):
    """Name, file, samples by (first, count), batch that is timed, samples that --seconds takes."""
    image_norm = lambda path: image(path, "imagenet-norm")  # noqa: E731
    imagenet = lambda path: image(path, "imagenet")  # noqa: E731
    cifar, text = data / "cifar10", data / "text"
    return [
        ("resnet20", cifar / "resnet20.onnx", pictures(cifar, "calib/*.png", image_norm, "input"), 16, 1024),
        ("mobilenetv2", data / "imagenet/mobilenetv2.onnx", pictures(data / "imagenet", "calib/*.*", imagenet, "input"), 1, 256),
        ("yolox-nano", data / "coco/yolox_nano.onnx", pictures(data / "coco", "calib/*.*", letterbox, "images"), 1, 0),
        ("minilm-128", text / "minilm_sst2.onnx", sentences(text), 1, 256),
        ("minilm-384", text / "minilm_squad.onnx", windows(text), 0, 32),
    ]


class Reader:
    """Feeds of `data` for quantize_static, in batches where the network's batch is open."""

    def __init__(self, model, data):
        declared = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0].shape[0]
        self.data, self.step, self.at = data, declared if isinstance(declared, int) else BATCH, 0

    def get_next(self):
        part = slice(self.at, self.at + self.step)
        self.at += self.step
        batch = {name: values[part] for name, values in self.data.items()}
        return batch if len(next(iter(batch.values()))) else None


def quantize_static(model, samples, written):
    """ONNX Runtime's own quantization; processor seconds that it took."""
    import logging

    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.WARNING)
    data = dict(np.load(samples))
    start = time.process_time()
    prepared = written.with_suffix(".prepared.onnx")
    network = onnx.load(model)
    if network.opset_import[0].version < 13:
        network = onnx.version_converter.convert_version(network, 13)
    quant_pre_process(network, str(prepared), auto_merge=True)
    quantize(
        str(prepared),
        str(written),
        Reader(prepared, data),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
    prepared.unlink()
    return time.process_time() - start


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def by_qdrop(qdrop, model, samples, written, weights, activations, *more):
    """qdrop's nearest rounding; processor seconds that it took."""
    bits = ["-w", str(weights), "-a", str(activations), "--method", "rtn", *more]
    command = [qdrop, "quantize", model, "--calib", samples, "-o", written, *bits, "--no-report", "-q"]
    start = children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return children() - start


def by_ort(model, samples, written):
    command = [sys.executable, __file__, "--quantize-static", model, samples, written]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"error: quantize_static on {model}: {run.stderr.strip().splitlines()[-1]}")
    return float(run.stdout.splitlines()[-1])


def saved(path, load, first, count):
    """A .npz with these samples, made if it is not there."""
    if not path.exists():
        np.savez(path, **load(first, count))
    return path


def session(path, optimised=None):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = DEFAULT
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def latency(qdrop, build, cache, network, rounds):
    """A row for every file of one network."""
    name, model, load, batch, _ = network
    samples = saved(cache / f"{name}.{CALIBRATION}.npz", load, 0, CALIBRATION)
    files = {FLOAT: model, ORT: cache / f"{name}.ort-{ort.__version__}.onnx"}
    if not files[ORT].exists():
        by_ort(model, samples, files[ORT])
    for w, a in BITS:
        file = files[f"qdrop W{w}A{a}"] = cache / f"{name}.w{w}a{a}.{build}.onnx"
        if not file.exists():
            by_qdrop(qdrop, model, samples, file, w, a, "--refine-samples", "0")
    timed = load(CALIBRATION, batch)
    optimised = cache / "optimised.onnx"
    counts, runs, least, outputs = {}, {}, {}, {}
    for key, file in files.items():
        session(file, optimised)
        counts[key] = kernels(optimised)
        runs[key] = session(file)
        outputs[key] = [np.ravel(v) for v in runs[key].run(None, timed)]
    optimised.unlink()
    for _ in range(rounds):
        for key, run in runs.items():
            start = time.process_time()
            run.run(None, timed)
            least[key] = min(least.get(key, np.inf), time.process_time() - start)
    for key, file in files.items():
        yield {
            "network": name,
            "file": key,
            "bytes": file.stat().st_size,
            "ms": 1e3 * least[key],
            "of_float": least[key] / least[FLOAT],
            "of_ort": least[key] / least[ORT],
            "snr_db": apart(outputs[FLOAT], outputs[key])[0],
            "integer": counts[key][0],
            "float": counts[key][1],
        }


def seconds(qdrop, cache, network):
    name, model, load, _, count = network
    samples = saved(cache / f"{name}.{count}.npz", load, 0, count)
    ours = by_qdrop(qdrop, model, samples, cache / "seconds.onnx", 8, 8)
    theirs = by_ort(model, samples, cache / "seconds.onnx")
    (cache / "seconds.onnx").unlink()
    return {"network": name, "samples": count, "qdrop_s": ours, "quantize_static_s": theirs, "ratio": ours / theirs}


def main():
    if sys.argv[1:2] == ["--quantize-static"]:
        model, samples, written = map(pathlib.Path, sys.argv[2:])
        print(quantize_static(model, samples, written))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = pathlib.Path(os.environ.get("QDROP_SHARED") or REPOSITORY / "../shared")
    parser.add_argument("qdrop", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, default=shared / "data")
    parser.add_argument("--cache", type=pathlib.Path, default=REPOSITORY / "target/latency")
    parser.add_argument("--networks", help="names, with commas between them [default: all]")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    ort.set_default_logger_severity(4)
    args.cache.mkdir(parents=True, exist_ok=True)
    build = hashlib.sha256(args.qdrop.read_bytes()).hexdigest()[:10]
    # A network without a batch or without a number of samples is not part of that table.
    chosen = [n for n in networks(args.data) if n[4 if args.seconds else 3]]
    if args.networks:
        unknown = set(args.networks.split(",")) - {n[0] for n in chosen}
        if unknown:
            parser.error(f"no network {sorted(unknown)}; there are {', '.join(n[0] for n in chosen)}")
        chosen = [n for n in chosen if n[0] in args.networks.split(",")]

    if args.seconds:
        head = f"{'network':14}{'samples':>8}{'qdrop s':>10}{'quantize_static s':>19}{'ratio':>8}"
    else:
        head = f"{'network':12} {'file':16}{'MB':>8}{'ms':>9}{'of float':>10}{'of ORT':>8}{'dB':>7}{'integer':>9}{'float':>7}"
    if not args.json:
        print(f"ONNX Runtime {ort.__version__}, one thread\n\n{head}", flush=True)
    for network in chosen:
        if args.seconds:
            rows = [seconds(args.qdrop, args.cache, network)]
        else:
            rows = latency(args.qdrop, build, args.cache, network, args.rounds)
        for row in rows:
            if args.json:
                print(json.dumps(row), flush=True)
            elif args.seconds:
                times = f"{row['qdrop_s']:10.1f}{row['quantize_static_s']:19.1f}{row['ratio']:8.2f}"
                print(f"{row['network']:14}{row['samples']:8}{times}", flush=True)
            else:
                nodes = f"{sum(row['integer'].values()):9}{sum(row['float'].values()):7}"
                ratio = "" if row["snr_db"] > 900 else f"{row['snr_db']:.1f}"
                shares = f"{row['of_float']:10.2f}{row['of_ort']:8.2f}{ratio:>7}"
                print(f"{row['network']:12} {row['file']:16}{row['bytes'] / 1e6:8.2f}{row['ms']:9.2f}{shares}{nodes}", flush=True)


if __name__ == "__main__":
    main()
