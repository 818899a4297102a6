#!/usr/bin/env python3
"""Outputs of a QONNX network by qonnx's own executor for given inputs.

usage: qonnx_outputs.py MODEL OUT INPUT.npy

INPUT is [N, ...] and float32; OUT is a folder, made if missing: OUT/0.npy is the first output for all samples. Prints one
line of JSON: {"samples": N, "operators": {"Quant": 39, ...}, "convertible": true}, the last where qonnx can turn every
quantizer into QuantizeLinear, Clip and DequantizeLinear, which it does for zero points of 0 alone.
"""

import argparse
import collections
import json
import pathlib

import numpy as np
import qonnx.core.onnx_exec as execution
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("input", type=pathlib.Path)
    args = parser.parse_args()

    samples = np.load(args.input)
    model = ModelWrapper(str(args.model))
    operators = collections.Counter(node.op_type for node in model.graph.node)
    source, result = model.graph.input[0].name, model.graph.output[0].name
    # The executor wants fixed shapes.
    model.set_tensor_shape(source, list(samples.shape))
    model = model.transform(InferShapes())
    output = execution.execute_onnx(model, {source: samples})[result]
    args.out.mkdir(parents=True, exist_ok=True)
    np.save(args.out / "0.npy", output)
    converted = model.transform(QuantToQCDQ())
    convertible = all(node.op_type != "Quant" for node in converted.graph.node)
    print(json.dumps({"samples": len(samples), "operators": operators, "convertible": convertible}))


if __name__ == "__main__":
    main()
