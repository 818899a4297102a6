"""A run from every kind of network and samples, and what it leaves."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHORT, command, tokens, two_inputs

import qdrop


def run(demo: qdrop.Demo, samples: Any, **options: Any) -> bytes:
    return qdrop.quantize(demo.model, samples, **{**SHORT, **options}).to_bytes()


def test_the_bytes_are_those_of_the_command_line(
    demo: qdrop.Demo, network: Path, quantized: qdrop.QuantizedModel, tmp_path: Path
) -> None:
    np.save(tmp_path / "calib.npy", demo.images)
    words = ("quantize", network, "--calib", "calib.npy", "-w", 4, "-a", 4, "--preset", "fast", "--seed", 0)
    done = command(*words, "--iters", SHORT["iterations"], "-o", "out.onnx", "-q", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "out.onnx").read_bytes()
    assert quantized.to_bytes() == written
    from_paths = qdrop.quantize(network, tmp_path / "calib.npy", **SHORT)
    assert from_paths.to_bytes() == written
    # Other settings give other bytes, and the same on both sides.
    done = command(*words[:4], "-w", 3, "-a", 8, "--method", "rtn", "--symmetric", "-o", "rtn.onnx", "-q", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    other = run(
        demo, demo.images, weights={"bits": 3, "symmetric": True}, activations={"bits": 8, "symmetric": True},
        method="rtn", preset="balanced", seed=1005, iterations=None,
    )
    assert other == (tmp_path / "rtn.onnx").read_bytes() != written


def test_every_kind_of_model_gives_the_same(
    demo: qdrop.Demo, network: Path, quantized: qdrop.QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    proto = onnx.load(str(network))
    for model in (network, str(network), bytearray(demo.model), memoryview(demo.model), proto):
        assert qdrop.quantize(model, demo.images, **SHORT).to_bytes() == quantized.to_bytes(), type(model)
    # A message that is too large to be serialised in one piece goes through a folder, and is not changed by it.
    before = proto.SerializeToString()
    monkeypatch.setattr("qdrop._model.WHOLE", 1000)
    qdrop.quantize(proto, demo.images, **SHORT).save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == quantized.to_bytes()
    assert proto.SerializeToString() == before


def test_a_result_that_is_too_large_for_bytes_is_saved(
    demo: qdrop.Demo, quantized: qdrop.QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdrop._model.WHOLE", 1000)
    large = qdrop.quantize(demo.model, demo.images, **SHORT)
    with pytest.raises(qdrop.UnsupportedError, match="too large for one piece of bytes"):
        large.to_bytes()
    with pytest.raises(qdrop.UnsupportedError):
        pickle.dumps(large)
    large.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == quantized.to_bytes()
    assert large.report["output"] is None and os.listdir(tmp_path) == ["out.onnx"]
    same = qdrop.compare(quantized, large, demo.images[:4], progress=False)
    assert same.report["first_difference"] is None


class Reader:
    """As ONNX Runtime's `CalibrationDataReader`."""

    def __init__(self, images: np.ndarray[Any, Any]) -> None:
        self.rest = iter(images)

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        image = next(self.rest, None)
        return None if image is None else {"input": image[None]}


def generator(images: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    yield from images


def batches(images: np.ndarray[Any, Any]) -> Iterator[list[Any]]:
    """Batches of different sizes with labels, as a loader of tuples has them."""
    for start, end in ((0, 20), (20, 21), (21, 64)):
        yield [images[start:end], np.arange(end - start)]


FORMS: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "list of samples": list,
    "generator": generator,
    "samples with a batch axis": lambda x: (image[None] for image in x),
    "batches with labels": batches,
    "dict of arrays": lambda x: {"input": x},
    "dicts": lambda x: [{"input": image, "label": 3} for image in x],
    "dicts with another name": lambda x: [{"pixel_values": image, "label": 3} for image in x],
    "tuple of arrays": lambda x: (x, np.arange(len(x))),
    "calibration data reader": Reader,
    "float64": lambda x: x.astype(np.float64),
    "big endian": lambda x: x.astype(">f4"),
    "not contiguous": lambda x: np.asfortranarray(x),
    "memory map": lambda x: x.view(np.memmap),
    "nested lists": lambda x: (image.tolist() for image in x),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_samples_gives_the_same(
    demo: qdrop.Demo, form: str, nearest: bytes
) -> None:
    assert run(demo, FORMS[form](demo.images), method="rtn") == nearest


@pytest.fixture(scope="module")
def nearest(demo: qdrop.Demo) -> bytes:
    return run(demo, demo.images, method="rtn")


def test_tensors_of_other_libraries(demo: qdrop.Demo, nearest: bytes) -> None:
    class Foreign:
        """Speaks DLPack and nothing else."""

        def __init__(self, array: np.ndarray[Any, Any]) -> None:
            self.own, self.shape, self.dtype = array, array.shape, "foreign"

        def __dlpack__(self, **options: Any) -> Any:
            return self.own.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.own.__dlpack_device__()

    assert run(demo, Foreign(demo.images.copy()), method="rtn") == nearest
    assert run(demo, [Foreign(demo.images[:30].copy()), Foreign(demo.images[30:].copy())], method="rtn") == nearest


def test_torch_loaders_and_tensors(demo: qdrop.Demo, nearest: bytes) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    images = torch.from_numpy(demo.images)
    data = torch.utils.data.TensorDataset(images, torch.from_numpy(demo.labels))
    loader = torch.utils.data.DataLoader(data, batch_size=20)
    for samples in (images, images.clone().requires_grad_(), loader, data):
        assert run(demo, samples, method="rtn") == nearest


def test_samples_are_limited(demo: qdrop.Demo) -> None:
    spread = qdrop.quantize(demo.model, demo.images, samples=40, **SHORT)
    assert spread.report["samples"] == 40

    def endless() -> Iterator[np.ndarray[Any, Any]]:
        while True:
            yield demo.images[0]

    first = qdrop.quantize(demo.model, endless(), samples=40, method="rtn", **SHORT)
    assert first.report["samples"] == 40


def test_samples_go_to_a_file_beyond_the_limit_on_memory(demo: qdrop.Demo, quantized: qdrop.QuantizedModel) -> None:
    little = qdrop.quantize(demo.model, demo.images, memory="1GiB", **SHORT)
    assert little.to_bytes() == quantized.to_bytes()


def test_images_of_bytes_are_prepared(demo: qdrop.Demo) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 40, 3), np.uint8)
    options = {"input": {"preset": "imagenet-norm", "resize": 36, "crop": 32}, "method": "rtn"}
    whole = run(demo, pixels, **options)
    assert whole == run(demo, list(pixels), **options) == run(demo, ({"img": p, "label": 0} for p in pixels), **options)


def test_the_result(demo: qdrop.Demo, network: Path, quantized: qdrop.QuantizedModel, tmp_path: Path) -> None:
    import onnx

    onnx.checker.check_model(quantized.model, full_check=True)
    quantized.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == quantized.to_bytes()
    report = quantized.report
    assert (report["weight_bits"], report["activation_bits"], report["seed"], report["preset"]) == (4, 4, 0, "fast")
    assert report["iterations"] == SHORT["iterations"] and report["output"] is None
    assert "conv" in repr(quantized) and repr(quantized) == str(quantized)
    page = quantized.html()
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>")
    assert "srcdoc=" in quantized._repr_html_()
    for ending, start in ((".html", "<!DOCTYPE"), (".json", '{"schema"')):
        quantized.save_report(tmp_path / f"report{ending}")
        assert (tmp_path / f"report{ending}").read_text().startswith(start)
    # The command line reads that report.
    assert command("report", tmp_path / "report.json").returncode == 0
    again = qdrop.quantize(network, demo.images, recipe=quantized.recipe, progress=False)
    assert again.to_bytes() == quantized.to_bytes()
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "report.html", "report.json"]


def test_results_pickle(quantized: qdrop.QuantizedModel, tmp_path: Path) -> None:
    copy = pickle.loads(pickle.dumps(quantized))
    assert copy == quantized and copy is not quantized
    assert copy.to_bytes() == quantized.to_bytes() and copy.report == quantized.report
    assert repr(copy) == repr(quantized) and copy.recipe == quantized.recipe
    copy.save(tmp_path / "copy.onnx")
    recipe = qdrop.Recipe(weights=3)
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    score = pickle.loads(pickle.dumps(qdrop.Score({"top1": 3.0}, 7)))
    assert (score["top1"], score.samples) == (3.0, 7)


def test_accuracy_is_measured(demo: qdrop.Demo) -> None:
    test = qdrop.demo(100, seed=2)
    done = qdrop.quantize(
        demo.model, demo.images, activations=8, eval=((x, y) for x, y in zip(test.images, test.labels)), **SHORT
    )
    accuracy = done.report["accuracy"]
    assert accuracy["float"]["top1"] > 85 and accuracy["result"]["top1"] > 80
    assert accuracy["result"]["samples"] == 100


def test_several_inputs_and_integers() -> None:
    random = np.random.default_rng(2)
    a, b = random.normal(size=(2, 40, 4)).astype(np.float32)
    done = [
        qdrop.quantize(two_inputs(), samples, method="rtn", progress=False).to_bytes()
        for samples in ((a, b), {"b": b, "a": a}, zip(a, b), [{"a": x, "b": y} for x, y in zip(a, b)])
    ]
    assert len(set(done)) == 1
    ids, mask = random.integers(0, 50, (40, 8)), np.ones((40, 8), np.int64)
    rows = [{"input_ids": i.tolist(), "attention_mask": m.tolist(), "label": 1, "text": "…"} for i, m in zip(ids, mask)]
    done = [
        qdrop.quantize(tokens(), samples, method="rtn", progress=False).to_bytes()
        for samples in (rows, (ids, mask), (ids.astype(np.int32), mask))
    ]
    assert len(set(done)) == 1


def test_inputs_can_be_fixed() -> None:
    a = np.random.default_rng(2).normal(size=(40, 4)).astype(np.float32)
    fixed = qdrop.quantize(two_inputs(), a, fix={"b": 0.5}, method="rtn", progress=False)
    assert [i.name for i in fixed.model.graph.input] == ["a"]
    assert qdrop.compare(two_inputs(), fixed, a[:8], fix={"b": 0.5}, progress=False).values
    with pytest.raises(qdrop.Error, match="`fix` c: the network has no input or size `c`"):
        qdrop.quantize(two_inputs(), a, fix={"c": 0.5}, progress=False)


def test_an_encodings_file_lies_beside_the_network(demo: qdrop.Demo, tmp_path: Path) -> None:
    done = qdrop.quantize(demo.model, demo.images, 8, 8, method="rtn", target="qnn", progress=False)
    assert done.encodings is not None and json.loads(done.encodings)
    done.save(tmp_path / "out.onnx")
    assert len(os.listdir(tmp_path)) == 2
