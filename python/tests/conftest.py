"""What the tests share: the demo's network and its pictures, and short runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qdrop

ROOT = Path(__file__).resolve().parents[2]

#: A run of a few seconds.
SHORT: dict[str, Any] = {"iterations": 12, "progress": False}


@pytest.fixture(scope="session")
def demo() -> qdrop.Demo:
    return qdrop.demo(64, seed=1)


@pytest.fixture(scope="session")
def network(demo: qdrop.Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's network as a file."""
    path = tmp_path_factory.mktemp("network") / "demo.onnx"
    path.write_bytes(demo.model)
    return path


@pytest.fixture(scope="session")
def quantized(demo: qdrop.Demo) -> qdrop.QuantizedModel:
    """What the short run makes of the demo's network and pictures as an array."""
    return qdrop.quantize(demo.model, demo.images, **SHORT)


def command(*words: Any, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command line of the package."""
    line = [sys.executable, "-m", "qdrop", *map(str, words)]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300)


def two_inputs() -> bytes:
    """A network with the inputs `a` [batch, 4] and `b` [batch, 4], the output `scores` [batch, 3] and two layers."""
    from onnx import TensorProto, checker, helper, numpy_helper

    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Gemm", ["sum", "w1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "ab"]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "two", inputs, outputs, [weight("w1", 4, 8), weight("w2", 8, 3)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def tokens() -> bytes:
    """A text classifier with the int64 inputs `input_ids` and `attention_mask` [batch, 8] and the output `logits`."""
    from onnx import TensorProto, checker, helper, numpy_helper

    random = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["kept"]),
        helper.make_node("MatMul", ["kept", "w1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["pooled"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["pooled", "w2"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", 8]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    last = numpy_helper.from_array(np.array([-1], np.int64), "last")
    weights = [weight("table", 50, 16), weight("w1", 16, 24), weight("w2", 24, 2), last]
    graph = helper.make_graph(nodes, "text", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())
