#!/usr/bin/env python3
"""Outputs of an ONNX network by ONNX Runtime for given inputs.

usage: ort_outputs.py MODEL OUT INPUT.npy... [--level all|none] [--batch N] [--threads N]
       ort_outputs.py MODEL OUT INPUTS.npz   [...]

One .npy per network input in the network's order, or one .npz whose names are the network's inputs; each array is
[N, ...] and is fed in batches (one by one where the network's batch is fixed to 1). Types must be the network's.
OUT is a folder, made if missing: OUT/0.npy, OUT/1.npy, ... hold the outputs in the network's order, joined along the
batch axis. Prints one line of JSON: {"samples": N, "outputs": [{"name", "shape", "dtype", "file"}, ...], "seconds": S}.
The optimisation level is ONNX Runtime's default (all). Exit status 1 and a line on stderr when something does not fit.
"""

import argparse
import json
import pathlib
import time

import numpy as np
from common import LEVELS, batches, fail, session


def feeds(run, paths):
    names = [i.name for i in run.get_inputs()]
    if len(paths) == 1 and paths[0].suffix == ".npz":
        arrays = dict(np.load(paths[0]))
        if set(arrays) != set(names):
            fail(f"expected arrays {names}, {paths[0]} has {sorted(arrays)}")
        return arrays
    if len(paths) != len(names):
        fail(f"expected {len(names)} arrays for {names}, got {len(paths)}")
    return {name: np.load(path) for name, path in zip(names, paths)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("inputs", type=pathlib.Path, nargs="+")
    parser.add_argument("--level", choices=LEVELS, default="all")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()

    run = session(args.model, args.level, args.threads)
    arrays = feeds(run, args.inputs)
    counts = {len(a) for a in arrays.values()}
    if len(counts) != 1:
        fail(f"arrays hold different numbers of samples: {sorted(counts)}")
    count = counts.pop()
    start = time.perf_counter()
    parts = [run.run(None, {k: a[part] for k, a in arrays.items()}) for part in batches(run, count, args.batch)]
    seconds = time.perf_counter() - start
    args.out.mkdir(parents=True, exist_ok=True)
    outputs = []
    for i, output in enumerate(run.get_outputs()):
        joined = np.concatenate([part[i] for part in parts])
        np.save(args.out / f"{i}.npy", joined)
        outputs.append({"name": output.name, "shape": list(joined.shape), "dtype": str(joined.dtype), "file": f"{i}.npy"})
    print(json.dumps({"samples": count, "outputs": outputs, "seconds": seconds}))


if __name__ == "__main__":
    main()
