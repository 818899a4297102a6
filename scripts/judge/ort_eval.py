#!/usr/bin/env python3
"""Accuracy of an ONNX classifier by ONNX Runtime and Pillow, independent of qdrop.

usage: ort_eval.py MODEL DATA --input imagenet|imagenet-norm [--level all|none] [--batch N] [--threads N] [--first N]

DATA: a folder with one sub-folder per class in sorted order, or a CSV with the columns file and label.
Prints one line of JSON: {"samples": N, "top1": per cent, "top5": per cent}. The optimisation level is ONNX Runtime's
default (all). Top-5 counts the five largest outputs, earlier classes first where they are equal.
"""

import argparse
import json

import numpy as np
from common import LEVELS, batches, image, labelled, session


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--input", choices=["imagenet", "imagenet-norm"], required=True)
    parser.add_argument("--level", choices=LEVELS, default="all")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--first", type=int)
    args = parser.parse_args()

    items = labelled(args.data)[: args.first]
    run = session(args.model, args.level, args.threads)
    name = run.get_inputs()[0].name
    hits = np.zeros(2, int)
    for part in batches(run, len(items), args.batch):
        x = np.stack([image(path, args.input) for path, _ in items[part]])
        (y,) = run.run([run.get_outputs()[0].name], {name: x})
        order = np.argsort(-y.reshape(len(x), -1), axis=1, kind="stable")[:, :5]
        found = order == np.array([label for _, label in items[part]])[:, None]
        hits += found[:, 0].sum(), found.sum()
    top1, top5 = (100 * hits / len(items)).tolist()
    print(json.dumps({"samples": len(items), "top1": top1, "top5": top5}))


if __name__ == "__main__":
    main()
