#!/usr/bin/env python3
"""Outputs of an ONNX network by OpenVINO on the CPU for given inputs, and in which types its layers ran.

usage: openvino_outputs.py MODEL OUT INPUT.npy [--no-lpt] [--threads N]

INPUT is [N, ...] and float32; OUT is a folder, made if missing: OUT/0.npy is the first output for all samples. Prints one
line of JSON: {"samples": N, "layers": {"u8": 18, "f32": 1}, "seconds": S}, where layers are convolutions and matrix
products by the type of their input. With --no-lpt the low-precision transformations are off: everything is float.
"""

import argparse
import collections
import json
import pathlib
import time

import numpy as np
import openvino as ov

LAYERS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("input", type=pathlib.Path)
    parser.add_argument("--no-lpt", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()

    # Float layers stay float32, as they are elsewhere.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if args.threads:
        settings["INFERENCE_NUM_THREADS"] = args.threads
    if args.no_lpt:
        settings["LP_TRANSFORMS_MODE"] = "NO"
    core = ov.Core()
    compiled = core.compile_model(core.read_model(args.model), "CPU", settings)
    samples = np.load(args.input)
    start = time.perf_counter()
    outputs = [compiled(samples[i : i + 32])[0] for i in range(0, len(samples), 32)]
    seconds = time.perf_counter() - start
    args.out.mkdir(parents=True, exist_ok=True)
    np.save(args.out / "0.npy", np.concatenate(outputs))
    layers = collections.Counter()
    for op in compiled.get_runtime_model().get_ops():
        info = {key: value.astype(str) for key, value in op.get_rt_info().items() if key in ("layerType", "runtimePrecision")}
        if info.get("layerType") in LAYERS:
            layers[info["runtimePrecision"]] += 1
    print(json.dumps({"samples": len(samples), "layers": layers, "seconds": seconds}))


if __name__ == "__main__":
    main()
