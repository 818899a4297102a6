"""The functions of the package."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Union

import numpy as np

from . import _model, _qdrop
from ._data import Data, opened
from ._errors import DataError, RecipeError
from ._model import Fix, ModelLike, native
from ._progress import Progress, receiver
from ._recipe import Recipe
from ._results import Comparison, Plan, QuantizedModel, Score, Sensitivity

__all__ = ["compare", "evaluate", "plan", "quantize", "sensitivity"]


class StreamedMetric(Protocol):
    """A metric that is told of one sample after the other."""

    def update(self, outputs: Any, targets: Any, /) -> object:
        """Takes the outputs ``[1, ...]`` for a sample, or a dict of them, and its target."""

    def compute(self) -> Any:
        """The metric, or a dict of metrics."""


#: A metric: a function of outputs and targets, or an object that gets them one by one.
Metric = Union[Callable[[Any, Any], Any], StreamedMetric]
#: Bits, or options of a section of the recipe.
Bits = Union[int, Mapping[str, Any]]

# What calls say that give neither a recipe nor the option.
_DEFAULTS: dict[str, Any] = {"weights": 4, "activations": 4, "preset": "fast", "seed": 0}


def _recipe(given: Recipe | str | os.PathLike[str] | None, options: Mapping[str, Any]) -> Recipe:
    if given is None:
        defaults = {k: v for k, v in _DEFAULTS.items() if options.get(k) is None}
        # Bits beside other options of weights or activations.
        for section in ("weights", "activations"):
            value = options.get(section)
            if isinstance(value, Mapping):
                options = {**options, section: {"bits": _DEFAULTS[section], **value}}
        return Recipe(**{**options, **defaults})
    if isinstance(given, (str, os.PathLike)):
        given = Recipe.load(given)
    if not isinstance(given, Recipe):
        raise RecipeError(f"expected a Recipe or the path of a recipe file, got {type(given).__name__}")
    return given.replace(**options)


def quantize(
    model: ModelLike,
    calibration: Data,
    weights: Bits | None = None,
    activations: Bits | None = None,
    preset: str | None = None,
    seed: int | None = None,
    eval: Data | None = None,
    progress: Progress = True,
    work_dir: str | os.PathLike[str] | None = None,
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    sensitivity: Sensitivity | None = None,
    fix: Fix | None = None,
    runtime: str | os.PathLike[str] | None = None,
    **options: Any,
) -> QuantizedModel:
    """Quantizes the weights and activations of ``model``.

    :param model: the path of an ONNX file, its bytes, or an ``onnx.ModelProto``.
    :param calibration: a few hundred samples without labels, on which the run calibrates and from which it learns: an array
        ``[N, ...]``, a dict or tuple of arrays for networks with several inputs, an iterable of those (samples or batches, told
        apart by the shape of the input), such as a ``DataLoader``, a ``CalibrationDataReader`` of ONNX Runtime, or a path as on
        the command line. Iterables are gone through once, and kept within the limit on memory. Labels in them are ignored.
    :param weights: bits of weights, 2 to 8, or 32 for float; 4 unless ``recipe`` says otherwise. Or a dict of options.
    :param activations: bits of activations, 2 to 8, 16, or 32 for float; 4 unless ``recipe`` says otherwise. Or a dict of
        options.
    :param preset: how long to learn: ``fast``, ``balanced`` or ``paper``; ``fast`` unless ``recipe`` says otherwise.
    :param seed: seed for all random choices; 0 unless ``recipe`` says otherwise. The same seed gives the same bytes.
    :param eval: labelled samples on which the float network, nearest rounding and the result are measured: ``(inputs, labels)``,
        an iterable of pairs, or a path.
    :param progress: true for bars by tqdm if it is installed, and lines on stderr otherwise; a function that is called with
        every event, a dict, and whose exceptions end the run; or false.
    :param work_dir: a folder that keeps every finished unit: the same call continues from there after it was stopped.
    :param recipe: options that the other arguments override: a ``Recipe``, or the path of a recipe file.
    :param sensitivity: measurements from which bits are chosen, for the options ``size`` and ``bitops``.
    :param fix: inputs or open sizes to fix, by name.
    :param runtime: ``"ort"`` or the path of ONNX Runtime's library: accuracy is measured there, and latency too.
    :param options: all other options of a recipe, as ``Recipe`` takes them: ``iterations=500``, ``method="rtn"``.
    :raises Error: with a subclass for each kind, and ``KeyboardInterrupt`` within a second after Ctrl-C.
    """
    given = {"weights": weights, "activations": activations, "preset": preset, "seed": seed, **options}
    made = _recipe(recipe, given)
    network = native(model, fix)
    network.check(made.to_toml())
    samples = opened(network, calibration, made, calibration=True)
    measured = None
    if eval is not None:
        measured = opened(network, eval, _without_limit(made), calibration=False, answers=True)
    try:
        content, kept, report, final, encodings = _qdrop.quantize(
            network,
            made.to_toml(),
            samples,
            measured,
            None if sensitivity is None else sensitivity._report,
            None if work_dir is None else os.fspath(work_dir),
            _library(runtime),
            _model.WHOLE,
            receiver(progress),
        )
    except KeyboardInterrupt as stopped:
        _tell_what_is_kept(stopped, work_dir)
        raise
    return QuantizedModel(content, report, final, encodings, kept)


def _library(runtime: str | os.PathLike[str] | None) -> str | None:
    """The library of ``runtime``: that of the package ``onnxruntime`` that this program would import, if there is one."""
    if runtime != "ort":
        return None if runtime is None else os.fspath(runtime)
    package = importlib.util.find_spec("onnxruntime")
    for folder in (package and package.submodule_search_locations) or ():
        for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll"):
            for path in sorted(Path(folder, "capi").glob(pattern)):
                return str(path)
    return "ort"


def _without_limit(recipe: Recipe) -> Recipe:
    """``recipe`` for sets of which all samples are taken."""
    sections = recipe.to_dict()
    sections.get("input", {}).pop("samples", None)
    return Recipe(**sections)


def _tell_what_is_kept(stopped: BaseException, work_dir: str | os.PathLike[str] | None) -> None:
    if work_dir is None or not hasattr(stopped, "add_note"):
        return
    units = len(list(Path(work_dir).glob("*.unit")))
    if units:
        stopped.add_note(f"{units} finished units are kept in `{work_dir}`; the same call continues from there")


def plan(
    model: ModelLike,
    calibration: Data | None = None,
    weights: Bits | None = None,
    activations: Bits | None = None,
    *,
    shapes: Sequence[Sequence[int]] | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    sensitivity: Sensitivity | None = None,
    fix: Fix | None = None,
    **options: Any,
) -> Plan:
    """What ``quantize`` would do, before it learns anything.

    Shapes and the number of samples are those of ``calibration``; without it, shapes are those that the file declares, or
    ``shapes``, one per input with the batch axis in front. The other arguments are those of ``quantize``.
    """
    made = _recipe(recipe, {"weights": weights, "activations": activations, **options})
    network = native(model, fix)
    samples = None if calibration is None else opened(network, calibration, made, calibration=True)
    whole = None if shapes is None else [[int(d) for d in shape] for shape in shapes]
    if whole is not None and len(whole) != len(network.inputs):
        raise DataError(f"expected {len(network.inputs)} shapes, one per input, got {len(whole)}")
    count = made.to_dict().get("input", {}).get("samples", 1024)
    measured = None if sensitivity is None else sensitivity._report
    return Plan(*_qdrop.plan(network, made.to_toml(), measured, samples, whole, count))


def sensitivity(
    model: ModelLike,
    calibration: Data,
    *,
    stripe: tuple[int, int] | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    fix: Fix | None = None,
    progress: Progress = True,
    **options: Any,
) -> Sensitivity:
    """Measures how the bits of each layer and activation, one at a time, affect the outputs of ``model``.

    ``candidates=[2, 4, 8]`` are the bits to measure. With ``stripe=(i, n)`` only every nth layer and every nth activation is
    measured, from the ith on, both counted from 0; ``Sensitivity.merge`` joins all n shares. The other arguments are those of
    ``quantize``.
    """
    made = _recipe(recipe, options)
    network = native(model, fix)
    samples = opened(network, calibration, made, calibration=True)
    return Sensitivity(_qdrop.sensitivity(network, made.to_toml(), samples, stripe, receiver(progress)))


def evaluate(
    model: ModelLike,
    data: Data,
    metric: Metric | None = None,
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    fix: Fix | None = None,
    runtime: str | os.PathLike[str] | None = None,
    progress: Progress = True,
    **options: Any,
) -> Score:
    """Measures ``model`` on samples with labels.

    :param data: ``(inputs, labels)``, an iterable of pairs or of dicts with an entry ``labels``, or a path.
    :param metric: without it, ``top1`` and ``top5`` in per cent, or the metrics of the option ``task``. A function is called
        once with the outputs of all samples, an array ``[N, ...]`` or a dict of arrays by output, and with all targets; what it
        returns is found under its name, or under the names of the dict that it returns. An object with ``update`` and
        ``compute``, such as those of torchmetrics, gets the outputs ``[1, ...]`` and the targets of one sample after the other,
        and nothing is kept. Outputs are float32.
    :param runtime: ``"ort"`` or the path of ONNX Runtime's library: the network runs there.
    """
    made = _recipe(recipe, options)
    network = native(model, fix, known=True)
    if metric is None:
        samples = opened(network, data, made, calibration=False, answers=True)
        library = _library(runtime)
        score = json.loads(_qdrop.evaluate(network, made.to_toml(), samples, library, receiver(progress)))
        return Score(score, score.pop("samples"))
    streamed: Any = metric if hasattr(metric, "update") and hasattr(metric, "compute") else None
    if streamed is None and not callable(metric):
        raise DataError(
            f"expected a metric, got {type(metric).__name__}",
            hint="give a function of outputs and targets, or an object with update and compute",
        )
    targets: list[Any] = []
    samples = opened(network, data, made, calibration=False, targets=targets)
    names: list[str] = network.outputs
    kept: list[list[np.ndarray[Any, Any]]] = [[] for _ in names]

    def each(index: int, outputs: list[tuple[list[int], bytes]]) -> None:
        arrays = [np.frombuffer(raw, np.float32).reshape(shape) for shape, raw in outputs]
        if streamed is not None:
            batch = [a[None] for a in arrays]
            streamed.update(batch[0] if len(batch) == 1 else dict(zip(names, batch)), _joined(targets[index : index + 1]))
        else:
            for own, a in zip(kept, arrays):
                own.append(a)

    threads = made.to_dict()["method"]["threads"]
    _qdrop.answers(network, samples, threads, _library(runtime), each, receiver(progress))
    if streamed is not None:
        value = streamed.compute()
    else:
        assert callable(metric)
        # Outputs whose sizes depend on data come as lists.
        outputs = [_joined(own) for own in kept]
        value = metric(outputs[0] if len(outputs) == 1 else dict(zip(names, outputs)), _joined(targets))
    if isinstance(value, Mapping):
        return Score(dict(value), len(targets))
    name = getattr(metric, "__name__", type(metric).__name__)
    return Score({"metric" if name == "<lambda>" else name: value}, len(targets))


def _joined(targets: Sequence[Any]) -> Any:
    """Arrays of all samples as one where they have one shape."""
    try:
        joined = np.stack([np.asarray(t) for t in targets])
    except (ValueError, TypeError):
        return targets
    return targets if joined.dtype == object else joined


def compare(
    a: ModelLike,
    b: ModelLike,
    data: Data,
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    fix: Fix | None = None,
    progress: Progress = True,
    **options: Any,
) -> Comparison:
    """Compares every value of the network ``b`` with the value of the same name in ``a``, over samples without labels."""
    made = _recipe(recipe, options)
    first, second = native(a, fix), native(b, fix, known=True)
    samples = opened(first, data, made, calibration=False)
    return Comparison(*_qdrop.compare(first, second, made.to_toml(), samples, receiver(progress)))
