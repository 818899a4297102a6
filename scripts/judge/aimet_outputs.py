#!/usr/bin/env python3
"""Outputs of a network with encodings by AIMET's simulation of quantized hardware.

usage: aimet_outputs.py MODEL OUT INPUT.npy --encodings FILE

INPUT is [N, ...] and float32; OUT is a folder, made if missing: OUT/0.npy is the first output for all samples. Every
quantizer of the simulation that the encodings do not name is off. Prints one line of JSON: {"samples": N, "version":
"1.0.0", "weights": 20, "activations": 39, "biases": 19, "bits": [4, 8, 16]}: weights and activations whose quantizers are
on, biases with an encoding of 32 bits, and the bits of quantizers that are on.

Where a value is moved only (reshaped, transposed), AIMET may quantize it before that in place of after.

Fails where the simulation has another grid than the file says, or where the file names a tensor that the network lacks.
"""

import argparse
import json
import os
import pathlib
import sys

# AIMET logs to stdout, which is for the answer alone.
ANSWER = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np
import onnx
from aimet_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim


MOVEMENTS = {"Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


def fail(message):
    sys.exit(f"error: {message}")


def entries(file):
    """Scales and zero points of the unsigned grid by name, of every layout."""
    version = file["version"]
    if version == "0.6.1":
        both = {**file["param_encodings"], **file["activation_encodings"]}
        return {n: (e[0]["bitwidth"], [c["scale"] for c in e], [-c["offset"] for c in e]) for n, e in both.items()}
    if version == "1.0.0":
        both = file["param_encodings"] + file["activation_encodings"]
        return {e["name"]: (e["bw"], e["scale"], [-o for o in e["offset"]]) for e in both}
    found = {}
    for e in file["encodings"]:
        bits = int(e["output_dtype"].split("int")[1])
        scale = np.atleast_1d(e["y_scale"]).tolist()
        shift = 0 if e["output_dtype"].startswith("u") else 2 ** (bits - 1)
        zero = np.broadcast_to(np.atleast_1d(e.get("y_zero_point", 0)), len(scale)) + shift
        found[e["name"]] = (bits, scale, zero.tolist())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("input", type=pathlib.Path)
    parser.add_argument("--encodings", type=pathlib.Path, required=True)
    args = parser.parse_args()

    file = json.loads(args.encodings.read_text())
    wanted = entries(file)
    samples = np.load(args.input)
    model = onnx.load(args.model)
    # The names of operands, before the simulation changes them.
    makers = {o: (node.op_type, node.input[0]) for node in model.graph.node for o in node.output if node.input}
    source = model.graph.input[0]
    first = {source.name: samples[:1]}
    sim = QuantizationSimModel(model, dummy_input=first, config_file="htp_v73")
    load_encodings_to_sim(sim, str(args.encodings), strict=False)

    found = set()
    counts = {"weights": 0, "activations": 0, "biases": 0}
    bits = set()
    for name, (width, scale, zero) in wanted.items():
        place = name
        while place not in sim.qc_quantize_op_dict and place in makers and makers[place][0] in MOVEMENTS:
            place = makers[place][1]
        quantizer = sim.qc_quantize_op_dict.get(place)
        if quantizer is None:
            fail(f"the simulation has no quantizer for {name}")
        found.add(place)
        if width == 32:
            counts["biases"] += 1
            continue
        if not quantizer.enabled:
            fail(f"the quantizer of {name} is off")
        loaded = quantizer.get_encodings()
        if [e.bw for e in loaded] != [width] * len(scale):
            fail(f"{name}: expected {len(scale)} grids of {width} bits, the simulation has {[e.bw for e in loaded]}")
        if not np.allclose([e.delta for e in loaded], scale, rtol=1e-6):
            fail(f"{name}: the simulation has other steps")
        if [-e.offset for e in loaded] != list(zero):
            fail(f"{name}: the simulation has other zero points")
        counts["weights" if name in sim.param_names else "activations"] += 1
        bits.add(width)
    on = [name for name, quantizer in sim.qc_quantize_op_dict.items() if quantizer.enabled]
    if set(on) - found:
        fail(f"quantizers without an encoding are on: {sorted(set(on) - found)[:3]}")

    declared = source.type.tensor_type.shape.dim[0].dim_value
    step = declared or len(samples)
    outputs = [sim.session.run(None, {source.name: samples[i : i + step]})[0] for i in range(0, len(samples), step)]
    args.out.mkdir(parents=True, exist_ok=True)
    np.save(args.out / "0.npy", np.concatenate(outputs))
    print(json.dumps({"samples": len(samples), "version": file["version"], **counts, "bits": sorted(bits)}), file=ANSWER, flush=True)


if __name__ == "__main__":
    main()
