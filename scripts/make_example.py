#!/usr/bin/env python3
"""Makes the small network and its samples in crates/qdrop/examples, which examples and documentation run on.

    make_example.py      needs numpy and onnx

Pictures of 12 x 12 hold stripes of one of four directions in random colours. Two convolutions of random weights see them; the
last layer is fitted to the classes by least squares.
"""
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES, SAMPLES = 12, 4, 96
FOLDER = Path(__file__).resolve().parent.parent / "crates" / "qdrop" / "examples"


def pictures(count, rng):
    """Stripes: class 0 lies, 1 stands, 2 and 3 are the diagonals."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    along = np.stack([y, x, x + y, x - y])
    labels = np.arange(count) % CLASSES
    phase = rng.integers(0, 4, count)
    on = ((along[labels] + phase[:, None, None]) // 2) % 2
    colour = rng.uniform(0.4, 1.0, (count, 3)) * rng.choice([-1.0, 1.0], (count, 1))
    images = on[:, None] * colour[:, :, None, None]
    # Few levels, so that the file is small.
    return (np.round(images * 32) / 32).astype(np.float32), labels.astype(np.int64)


def convolution(x, w, b, stride):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, w, optimize=True) + b[:, None, None]


def features(x, weights):
    x = np.maximum(convolution(x, weights["conv1.weight"], weights["conv1.bias"], 1), 0)
    x = np.maximum(convolution(x, weights["conv2.weight"], weights["conv2.bias"], 2), 0)
    return x.mean((2, 3))


def main():
    rng = np.random.default_rng(0)
    weights = {
        "conv1.weight": rng.normal(0, 0.35, (16, 3, 3, 3)),
        "conv1.bias": rng.normal(0, 0.1, 16),
        "conv2.weight": rng.normal(0, 0.12, (32, 16, 3, 3)),
        "conv2.bias": rng.normal(0, 0.1, 32),
    }
    x, labels = pictures(2048, rng)
    seen = np.concatenate([features(x, weights), np.ones((len(x), 1))], 1)
    wanted = 4.0 * np.eye(CLASSES)[labels]
    fitted = np.linalg.solve(seen.T @ seen + 1e-3 * np.eye(33), seen.T @ wanted)
    weights["fc.weight"], weights["fc.bias"] = fitted[:-1].T.copy(), fitted[-1]

    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], "conv2", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["scores"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "stripes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, FOLDER / "network.onnx")
    x, labels = pictures(SAMPLES, rng)
    np.savez_compressed(FOLDER / "samples.npz", image=x, labels=labels)
    scores = features(x, weights) @ weights["fc.weight"].T + weights["fc.bias"]
    print(f"float top-1 {100 * (scores.argmax(1) == labels).mean():.1f} %")


if __name__ == "__main__":
    main()
