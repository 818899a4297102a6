"""Plans, sensitivities, scores, comparisons, and recipes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import command, two_inputs

import qdrop


def test_plans_are_those_of_the_command_line(demo: qdrop.Demo, network: Path) -> None:
    plan = qdrop.plan(network, weights=3, activations=8, preset="balanced")
    done = command("plan", network, "-w", 3, "-a", 8, "--format", "json")
    assert plan.report == json.loads(done.stdout)
    assert repr(plan) == command("plan", network, "-w", 3, "-a", 8).stdout.rstrip("\n")
    assert pickle.loads(pickle.dumps(plan)) == plan
    for_samples = qdrop.plan(demo.model, demo.images)
    assert for_samples.report["predicted_memory"]["samples"] == 64
    assert qdrop.plan(two_inputs(), shapes=[(1, 4), (1, 4)]).report["layers"]
    with pytest.raises(qdrop.DataError, match="expected 2 shapes, one per input, got 1"):
        qdrop.plan(two_inputs(), shapes=[(1, 4)])
    with pytest.raises(qdrop.RecipeError, match="needs measured sensitivities"):
        qdrop.plan(demo.model, size="w3")


def test_bits_are_chosen_by_sensitivities(demo: qdrop.Demo, network: Path, tmp_path: Path) -> None:
    found = qdrop.sensitivity(demo.model, demo.images, candidates=[2, 8], progress=False)
    curves = found.report["layers"]
    assert len(curves) == 10
    for curve in curves:
        errors = {e["bits"]: e["error"] for e in curve["errors"]}
        assert errors[2] > errors[8]
    assert "2 bit" in repr(found) and "8 bit" in repr(found) and "srcdoc" in found._repr_html_()
    for ending in ("json", "csv", "html"):
        found.save(tmp_path / f"found.{ending}")
    assert qdrop.Sensitivity.load(tmp_path / "found.json") == found == pickle.loads(pickle.dumps(found))
    assert (tmp_path / "found.csv").read_text().startswith("kind,name,")
    done = qdrop.quantize(
        network, demo.images, size="w4", candidates=[2, 8], sensitivity=found, method="rtn", progress=False
    )
    bits = {layer["bits"] for layer in done.report["layers"]}
    assert bits <= {2, 8} and len(bits) == 2, bits
    # The command line reads the same file, and chooses the same.
    np.save(tmp_path / "calib.npy", demo.images)
    words = ["quantize", network, "--calib", "calib.npy", "--target-size", "w4", "--candidates", "2,8", "--method", "rtn"]
    line = command(*words, "--preset", "fast", "--seed", 0, "--sensitivity", "found.json", "-o", "o.onnx", folder=tmp_path)
    assert line.returncode == 0, line.stderr
    assert (tmp_path / "o.onnx").read_bytes() == done.to_bytes()


def test_shares_of_sensitivities_are_joined(demo: qdrop.Demo, tmp_path: Path) -> None:
    def measured(**options: Any) -> qdrop.Sensitivity:
        return qdrop.sensitivity(demo.model, demo.images, candidates=[2, 8], progress=False, **options)

    shares = [measured(stripe=(i, 3)) for i in range(3)]
    assert [len(share.report["layers"]) for share in shares] == [4, 3, 3]
    assert "share 1/3" in repr(shares[1])
    shares[1].save(tmp_path / "share.json")
    shares[1] = qdrop.Sensitivity.load(tmp_path / "share.json")
    assert qdrop.Sensitivity.merge(reversed(shares)) == measured()
    with pytest.raises(qdrop.DataError, match="share 1/3 is missing") as missing:
        qdrop.Sensitivity.merge([shares[0], shares[2]])
    assert missing.value.hint == "measure it with `stripe` 1/3"
    with pytest.raises(qdrop.DataError, match=r"`shares\[0\]` and `shares\[1\]` are both share 0/3"):
        qdrop.Sensitivity.merge([shares[0], shares[0]])
    with pytest.raises(qdrop.DataError, match="got share 0/3") as partial:
        qdrop.plan(demo.model, size="w4", sensitivity=shares[0])
    assert partial.value.hint == "join all shares with `qdrop.Sensitivity.merge`"
    with pytest.raises(qdrop.RecipeError, match="from 0 to 2, got 3/3"):
        measured(stripe=(3, 3))
    (tmp_path / "share.json").write_text("{}")
    with pytest.raises(qdrop.DataError, match="expected sensitivities in JSON") as damaged:
        qdrop.Sensitivity.load(tmp_path / "share.json")
    assert damaged.value.places == (str(tmp_path / "share.json"),)


def test_scores_are_those_of_the_command_line(demo: qdrop.Demo, network: Path, tmp_path: Path) -> None:
    test = qdrop.demo(200, seed=2)
    score = qdrop.evaluate(demo.model, (test.images, test.labels), progress=False)
    np.savez(tmp_path / "test.npz", input=test.images, labels=test.labels)
    done = command("eval", network, "--data", tmp_path / "test.npz", "--format", "json")
    told = json.loads(done.stdout)
    assert (score["top1"], score["top5"], score.samples) == (told["top1"], told["top5"], 200)
    assert score["top1"] > 90
    assert qdrop.evaluate(network, tmp_path / "test.npz", progress=False) == score
    assert repr(score).startswith("Score({'top1'")


def test_metrics_in_python(demo: qdrop.Demo, quantized: qdrop.QuantizedModel) -> None:
    test = qdrop.demo(100, seed=2)
    pairs = [(test.images[:30], test.labels[:30]), (test.images[30:], test.labels[30:])]
    known = qdrop.evaluate(quantized, pairs, progress=False)

    def top1(outputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> float:
        assert outputs.shape == (100, 20) and outputs.dtype == np.float32
        return float((outputs.argmax(1) == targets).mean() * 100)

    assert qdrop.evaluate(quantized, pairs, metric=top1, progress=False) == {"top1": known["top1"]}

    class Streamed:
        right = seen = 0

        def update(self, outputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> None:
            assert outputs.shape == (1, 20) and targets.shape == (1,)
            self.right += int((outputs.argmax(1) == targets).sum())
            self.seen += 1

        def compute(self) -> dict[str, float]:
            return {"accuracy": self.right / self.seen}

    score = qdrop.evaluate(quantized, pairs, metric=Streamed(), progress=False)
    assert score == {"accuracy": known["top1"] / 100} and score.samples == 100
    # Targets may be anything.
    boxes = [{"boxes": [[0, 0, 1, i]]} for i in range(3)]
    score = qdrop.evaluate(quantized, zip(test.images, boxes), metric=lambda o, t: t == boxes, progress=False)
    assert score == {"metric": True}

    def broken(outputs: Any, targets: Any) -> None:
        raise LookupError("in the metric")

    with pytest.raises(LookupError, match="in the metric"):
        qdrop.evaluate(quantized, pairs, metric=broken, progress=False)


def test_outputs_are_those_of_onnx_runtime(demo: qdrop.Demo, quantized: qdrop.QuantizedModel) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(quantized.to_bytes(), providers=["CPUExecutionProvider"])
    images = qdrop.demo(40, seed=2).images
    (theirs,) = session.run(None, {"input": images})
    ours: list[np.ndarray[Any, Any]] = []
    data = (images, np.zeros(40, int))
    qdrop.evaluate(quantized, data, metric=lambda outputs, targets: ours.append(outputs) or 0, progress=False)
    assert (ours[0].argmax(1) == theirs.argmax(1)).mean() > 0.94
    assert np.abs(ours[0] - theirs).mean() < 0.05 * np.abs(theirs).mean()
    score = qdrop.evaluate(quantized, (images, theirs.argmax(1)), runtime="ort", progress=False)
    assert score["top1"] == 100

    def kept(outputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> float:
        assert outputs.dtype == np.float32
        np.testing.assert_allclose(outputs, theirs, atol=1e-4)
        return float((targets == data[1]).mean())

    assert qdrop.evaluate(quantized, data, metric=kept, runtime="ort", progress=False) == {"kept": 1}


def test_metrics_of_outputs_in_onnx_runtime() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    make, real = onnx.helper, onnx.TensorProto.FLOAT

    def value(name: str, kind: int, shape: list[Any]) -> Any:
        return make.make_tensor_value_info(name, kind, shape)

    # An output by sample, one whose size depends on the sample, and one without a batch.
    nodes = [
        make.make_node("Relu", ["x"], ["y"]),
        make.make_node("NonZero", ["y"], ["where"]),
        make.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
    ]
    outputs = [value("y", real, ["n", 4]), value("where", onnx.TensorProto.INT64, [2, "k"]), value("sum", real, [])]
    graph = make.make_graph(nodes, "net", [value("x", real, ["n", 4])], outputs)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    x = np.array([[1, -1, 2, -2], [-1, -1, -1, 3], [1, 1, 1, 1]], np.float32)

    def own(outputs: dict[str, Any], targets: np.ndarray[Any, Any]) -> bool:
        assert np.array_equal(outputs["y"], np.maximum(x, 0)) and np.array_equal(outputs["sum"], x.sum(1))
        assert [w.shape for w in outputs["where"]] == [(2, 2), (2, 1), (2, 4)]
        return targets.tolist() == [0, 1, 2]

    for runtime in (None, "ort"):
        assert qdrop.evaluate(model, (x, np.arange(3)), metric=own, runtime=runtime, progress=False) == {"own": True}

    def broken(outputs: Any, targets: Any) -> None:
        raise LookupError("in the metric")

    with pytest.raises(LookupError, match="in the metric"):
        qdrop.evaluate(model, (x, np.arange(3)), metric=broken, runtime="ort", progress=False)


def test_values_are_compared(demo: qdrop.Demo, network: Path, quantized: qdrop.QuantizedModel) -> None:
    same = qdrop.compare(network, demo.model, demo.images[:8], progress=False)
    assert same.report["first_difference"] is None and "No value differs" in repr(same)
    differs = qdrop.compare(network, quantized, demo.images[:8], progress=False)
    assert differs.values[-1]["snr_db"] > 10 and differs.report["samples"] == 8
    assert differs.values[-1]["name"] == "logits"
    with pytest.raises(qdrop.DataError, match="the network has 1 inputs, the samples have 2"):
        qdrop.compare(two_inputs(), demo.model, (np.zeros((2, 4), "f4"), np.zeros((2, 4), "f4")), progress=False)


def test_recipes() -> None:
    recipe = qdrop.Recipe(weights=3, iterations=500, lambda_=0.1, input="imagenet")
    assert repr(recipe) == (
        "Recipe(weights={'bits': 3}, method={'iterations': 500, 'lambda': 0.1}, input={'preset': 'imagenet'})"
    )
    assert qdrop.Recipe.from_toml(recipe.to_toml()) == recipe and hash(recipe) == hash(recipe.replace())
    other = recipe.replace(weights={"symmetric": True}, override=[{"layer": "*fc*", "weight_bits": 8}])
    assert other.to_dict()["weights"]["bits"] == 3 and other.to_dict()["override"][0]["weight_bits"] == 8
    assert other != recipe
    assert qdrop.Recipe.from_toml(qdrop.Recipe.describe()) == qdrop.Recipe()
    assert qdrop.Recipe(batch=np.int64(16)).to_dict()["method"]["batch"] == 16


def test_arguments_override_a_recipe(demo: qdrop.Demo, tmp_path: Path) -> None:
    recipe = qdrop.Recipe(weights=8, activations=8, method="rtn", seed=5)
    recipe.save(tmp_path / "recipe.toml")
    for given in (recipe, tmp_path / "recipe.toml"):
        report = qdrop.quantize(demo.model, demo.images, recipe=given, activations=4, progress=False).report
        assert (report["weight_bits"], report["activation_bits"], report["seed"]) == (8, 4, 5)
        assert (report["method"], report["preset"]) == ("rtn", "balanced")
