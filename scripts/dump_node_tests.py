#!/usr/bin/env python3
"""Writes ONNX's own operator tests as files that the Rust tests read.

usage: dump_node_tests.py OUT

For each test NAME with tensor inputs and outputs: OUT/NAME.model.onnx (the model) and OUT/NAME.data.onnx (a model
without nodes whose initializers `input_0`, ... and `output_0`, ... are its operands and expected results).
Needs the packages onnx and numpy.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases


def tensor(value, name):
    if isinstance(value, onnx.TensorProto):
        out = onnx.TensorProto()
        out.CopyFrom(value)
        out.name = name
        return out
    if isinstance(value, (np.ndarray, np.generic)):
        return numpy_helper.from_array(np.asarray(value), name)
    return None


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    written = skipped = 0
    for case in collect_testcases(None):
        if not case.data_sets:
            skipped += 1
            continue
        inputs, outputs = case.data_sets[0]
        tensors = [tensor(v, f"input_{i}") for i, v in enumerate(inputs)]
        tensors += [tensor(v, f"output_{i}") for i, v in enumerate(outputs)]
        if any(t is None for t in tensors):
            skipped += 1
            continue
        graph = helper.make_graph([], "data", [], [], initializer=tensors)
        data = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
        (out / f"{case.name}.model.onnx").write_bytes(case.model.SerializeToString())
        (out / f"{case.name}.data.onnx").write_bytes(data.SerializeToString())
        written += 1
    print(f"{written} tests written to {out}, {skipped} without plain tensors skipped")


if __name__ == "__main__":
    main()
