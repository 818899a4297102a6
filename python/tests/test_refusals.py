"""What cannot be done is refused with an exception that says where, and what to do."""

from __future__ import annotations

import errno
import inspect
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHORT, two_inputs

import qdrop
from qdrop import _qdrop
from qdrop._errors import in_python, made


def refused(kind: type[qdrop.Error], model: Any, samples: Any, **options: Any) -> qdrop.Error:
    with pytest.raises(kind) as caught:
        qdrop.quantize(model, samples, **{**SHORT, **options})
    error = caught.value
    # Those of the operating system are as it gives them.
    assert error.message and (error.message[0].islower() or kind is qdrop.IoError) and error.message[-1] != "."
    assert error.kind == kind.kind and str(error.message) in str(error)
    return error


def test_samples_that_do_not_fit(demo: qdrop.Demo) -> None:
    model, x = demo.model, demo.images
    error = refused(qdrop.DataError, model, x[:, :, :30])
    assert error.message == "expected shape [3, 32, 32] or [N, 3, 32, 32] for the input `input`, got [64, 3, 30, 32]"
    error = refused(qdrop.DataError, model, x.transpose(0, 2, 3, 1))
    assert error.hint is not None and "np.moveaxis(x, -1, -3)" in error.hint
    error = refused(qdrop.DataError, model, (x * 50).astype(np.uint8))
    assert "got uint8" in error.message and "astype(np.float32)" in str(error.hint)
    error = refused(qdrop.DataError, model, [*x[:5], x[5, :, 1:]])
    assert error.places == ("sample 5",)
    error = refused(qdrop.DataError, model, ["a.png"])
    assert "got text" in error.message
    error = refused(qdrop.DataError, model, 3)
    assert "expected samples, got int" in error.message
    assert isinstance(error, ValueError)


def test_samples_that_are_none_or_few(demo: qdrop.Demo) -> None:
    for empty in ([], iter(()), demo.images[:0]):
        assert "expected samples, got none" in refused(qdrop.DataError, demo.model, empty).message
    error = refused(qdrop.DataError, demo.model, demo.images[:7])
    assert "got 7" in error.message and error.hint == "add samples, or lower `batch`"


def test_samples_that_are_not_finite(demo: qdrop.Demo) -> None:
    images = demo.images.copy()
    images[3, 0, 0, 0] = np.nan
    error = refused(qdrop.NumericError, demo.model, images)
    assert error.places == ("sample `3`",) and isinstance(error, ArithmeticError)


def test_an_iterator_that_raises(demo: qdrop.Demo) -> None:
    def broken() -> Iterator[np.ndarray[Any, Any]]:
        yield demo.images[0]
        raise ZeroDivisionError("in the loader")

    with pytest.raises(ZeroDivisionError, match="in the loader"):
        qdrop.quantize(demo.model, broken(), progress=False)


def test_inputs_that_are_missing() -> None:
    a = np.zeros((40, 4), np.float32)
    error = refused(qdrop.DataError, two_inputs(), {"a": a})
    assert "`b`, got `a`" in error.message and "fix=" in str(error.hint)
    error = refused(qdrop.DataError, two_inputs(), a)
    assert "expected a dict or a tuple" in error.message
    error = refused(qdrop.DataError, two_inputs(), (a,))
    assert "got 1" in error.message
    error = refused(qdrop.DataError, two_inputs(), (a, a[:30]))
    assert "same number of samples" in error.message


def test_options(demo: qdrop.Demo) -> None:
    def option(**options: Any) -> qdrop.Error:
        return refused(qdrop.RecipeError, demo.model, demo.images, **options)

    error = option(iteratons=5)
    assert (error.message, error.hint) == ("unknown option `iteratons`", "did you mean `iterations`?")
    error = option(weights=9)
    assert error.message == "weights.bits: expected 2 to 8, or 32 for float, got 9"
    error = option(weights={"bit": 4})
    assert error.places == ("weights.bit",) and "unknown field" in error.message
    error = option(batch="many")
    assert error.places == ("method.batch",) and "invalid type" in error.message
    error = option(symmetric=True)
    assert "several sections" in error.message and "weights={'symmetric': ...}" in str(error.hint)
    error = option(preset="quick")
    assert error.places == ("method.preset",)
    error = option(override=[{"layer": "a", "weight_bits": 33}])
    assert "33" in error.message
    error = option(override=[{"layr": "a"}])
    assert error.places == ("override[0].layr",)
    option(recipe=7)
    option(lambda_=object())
    option(size="w3", keep_first_last="perhaps")


def test_networks(demo: qdrop.Demo, tmp_path: Path) -> None:
    error = refused(qdrop.IoError, tmp_path / "none.onnx", demo.images)
    assert isinstance(error, OSError) and error.errno == errno.ENOENT and error.places == (str(tmp_path / "none.onnx"),)
    error = refused(qdrop.ModelError, b"no model", demo.images)
    assert isinstance(error, ValueError)
    refused(qdrop.ModelError, demo.model[:50000], demo.images)
    error = refused(qdrop.DataError, 5, demo.images)
    assert "expected a network, got int" in error.message

    class Module:
        def parameters(self) -> None: ...

    assert "torch.onnx.export" in str(refused(qdrop.DataError, Module(), demo.images).hint)


def test_files(quantized: qdrop.QuantizedModel, demo: qdrop.Demo, tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "out.onnx", tmp_path):
        with pytest.raises(qdrop.IoError) as caught:
            quantized.save(path)
        assert str(path) in str(caught.value)
    with pytest.raises(qdrop.RecipeError, match="ends in .html or .json"):
        quantized.save_report(tmp_path / "report.txt")
    assert os.listdir(tmp_path) == []
    refused(qdrop.IoError, demo.model, tmp_path / "none.npy")
    with pytest.raises(OSError):
        qdrop.Recipe.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(qdrop.RecipeError, match="UTF-8"):
        qdrop.Recipe.load(tmp_path / "bad.toml")


def test_labels(demo: qdrop.Demo) -> None:
    def evaluate(data: Any, **options: Any) -> qdrop.Error:
        with pytest.raises(qdrop.DataError) as caught:
            qdrop.evaluate(demo.model, data, progress=False, **options)
        return caught.value

    x, y = demo.images, demo.labels
    assert evaluate(x).message == "expected a label, got none"
    assert evaluate((x, y[:5])).message == "expected 64 labels, one per sample, got 5"
    assert evaluate((x, y - 1)).places == ("sample 0",)
    assert "out of range" in evaluate((x, y + 1)).message
    assert "shape [20]" in evaluate((x, np.eye(20)[y])).message
    assert "expected a target, got none" in evaluate(x, metric=lambda outputs, targets: 0).message
    assert "expected a metric, got str" in evaluate((x, y), metric="top1").message


def test_options_in_messages_are_those_of_python() -> None:
    known = {name for option in _qdrop.recipe_options() for name in option} | {"lambda_", "the samples"}
    for function in (qdrop.quantize, qdrop.plan, qdrop.sensitivity, qdrop.evaluate):
        known |= set(inspect.signature(function).parameters)
    # Only the command line has them.
    known |= {"detections", "merge"}
    named = set()
    for path in Path(__file__).parents[2].glob("crates/qdrop/src/**/*.rs"):
        code = path.read_text(encoding="utf-8").split("#[cfg(test)]")[0]
        lines = (line for line in code.splitlines() if not line.lstrip().startswith("//"))
        for text in re.findall(r'"[^"]*"', "\n".join(lines)):
            named |= {(option, in_python(option)) for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*\b(?!:)", text)}
    unknown = {option for option, name in named if name.strip("`") not in known}
    assert len(named) > 20 and not unknown, unknown


def test_bugs_are_exceptions_too() -> None:
    error = made("internal", ["unit `a`"], "a panic: too many", "please report it", None)
    assert type(error) is qdrop.InternalError and isinstance(error, RuntimeError)
    assert str(error) == "unit `a`: a panic: too many\nhint: please report it"


def test_errors_pickle_and_print() -> None:
    error = qdrop.IoError("expected `a`, got `b`", places=["inner", "outer"], hint="try c")
    error.errno = 5
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is qdrop.IoError and (copy.places, copy.hint, copy.errno) == (("inner", "outer"), "try c", 5)
    assert str(copy) == "outer: inner: expected `a`, got `b`\nhint: try c"
    assert repr(copy) == "IoError('expected `a`, got `b`', places=('inner', 'outer'), hint='try c')"
    assert all(issubclass(getattr(qdrop, n), qdrop.Error) for n in qdrop.__all__ if n.endswith("Error"))
