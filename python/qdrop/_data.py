"""Samples as users have them, handed to the library one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union

import numpy as np

from . import _qdrop
from ._errors import DataError
from ._recipe import Recipe

#: Samples: a path as on the command line, an array, a dict of arrays, a tuple of arrays, ONNX Runtime's
#: ``CalibrationDataReader``, or any iterable of arrays, tuples or dicts, such as a ``DataLoader``.
Data = Union[str, "os.PathLike[str]", "np.ndarray[Any, Any]", Mapping[str, Any], Iterable[Any]]

# Keys under which a dict has the right answer.
_ANSWERS = ("labels", "label", "targets", "target", "y")


class Input(NamedTuple):
    """An input of a network; ``None`` in shapes is any size."""

    name: str
    dtype: str
    shape: list[int | None]
    whole: list[int | None] | None
    batch_axis: int | None

    @property
    def text(self) -> str:
        """What arrays for it look like."""
        sizes = ["?" if d is None else str(d) for d in self.shape]
        return f"[{', '.join(sizes)}] or [N{''.join(', ' + s for s in sizes)}]"


def opened(
    model: _qdrop.Model,
    data: Data,
    recipe: Recipe,
    *,
    calibration: bool,
    answers: bool = False,
    targets: list[Any] | None = None,
) -> _qdrop.Samples:
    """The samples in ``data``, which is gone through once.

    Of a path, an array, or arrays side by side, as many samples as the recipe says are taken, spread over all of them; of
    other iterables the first. With ``answers``, right answers go to the library; with ``targets``, they are added there.
    """
    limit = recipe.to_dict().get("input", {}).get("samples")
    if isinstance(data, (str, os.PathLike)):
        if targets is not None:
            raise DataError(
                "expected samples with targets, got a path",
                hint="a metric that is a function takes samples in memory; give (inputs, targets)",
            )
        return _qdrop.Samples.open(os.fspath(data), model, recipe.to_toml(), calibration, limit)
    collector = _qdrop.Collector(model, recipe.to_toml())
    feed = _Feed([Input(*spec) for spec in model.inputs], collector.prepares_images())
    task = recipe.to_dict().get("input", {}).get("task")
    whole = _is_array(data) or isinstance(data, (Mapping, tuple))
    for item in _items(data, whole):
        for arrays, target in feed.samples(item, len(collector)):
            answer = _answer(target, task, len(collector)) if answers else None
            collector.push([_raw(a) for a in arrays], answer)
            if targets is not None:
                if target is None:
                    raise DataError("expected a target, got none", places=[f"sample {len(collector) - 1}"])
                targets.append(target)
            if not whole and limit is not None and len(collector) >= limit:
                return collector.finish(None)
    if len(collector) == 0:
        raise DataError(
            "expected samples, got none", hint="the iterable is empty; a generator can be gone through only once"
        )
    if targets is not None and whole and limit is not None and limit < len(collector):
        raise DataError(
            "expected all samples for a metric that is a function, got `samples`", hint="leave `samples` out"
        )
    return collector.finish(limit)


def _items(data: Any, whole: bool) -> Iterator[Any]:
    """Batches or samples."""
    if whole:
        return iter([data])
    if hasattr(data, "get_next"):
        return iter(data.get_next, None)
    try:
        return iter(data)
    except TypeError:
        raise DataError(
            f"expected samples, got {type(data).__name__}",
            hint="give a path, an array, a dict of arrays, or an iterable of them, such as a DataLoader",
        ) from None


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def array(value: Any) -> np.ndarray[Any, Any]:
    """``value`` as an array: numpy's, a tensor of torch, whatever speaks DLPack, an image of Pillow, or numbers."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):  # torch
        value = value.detach().cpu()
        # numpy has no such type; torch's float32 holds all its values.
        return np.asarray((value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy())
    if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
        try:
            found = np.asarray(value)
        except ValueError as error:
            raise DataError(f"expected an array, got {type(value).__name__}: {error}") from None
    else:
        found = np.from_dlpack(value)
    if found.dtype == object or found.dtype.kind in "USV" and found.dtype.name != "bfloat16":
        what = "text" if found.dtype.kind in "US" else type(value).__name__
        raise DataError(
            f"expected numbers, got {what}", hint="turn texts into token numbers, and images into arrays, before"
        )
    return found


class _Feed:
    """Splits what users give into samples."""

    def __init__(self, inputs: list[Input], prepares_images: bool) -> None:
        self.inputs = inputs
        self.prepares_images = prepares_images

    def samples(self, item: Any, first: int) -> Iterator[tuple[list[np.ndarray[Any, Any]], Any]]:
        """The samples in ``item``, which is one or a batch of them, with the right answers if it has any."""
        try:
            values, target = self.by_input(item)
            arrays = [self.suited(spec, array(value)) for spec, value in zip(self.inputs, values)]
            axes = [self.batch_axis(spec, a) for spec, a in zip(self.inputs, arrays)]
        except DataError as error:
            error.places = (*error.places, f"sample {first}")
            raise
        sizes = {a.shape[axis] for a, axis in zip(arrays, axes) if axis is not None}
        if not sizes:
            yield arrays, target
            return
        if len(sizes) > 1:
            found = ", ".join(str(a.shape) for a in arrays)
            raise DataError(
                f"expected arrays with the same number of samples, got shapes {found}", places=[f"sample {first}"]
            )
        (count,) = sizes
        answers = _split(target, count, first)
        for i in range(count):
            yield [a if axis is None else a.take(i, axis) for a, axis in zip(arrays, axes)], answers[i]

    def by_input(self, item: Any) -> tuple[list[Any], Any]:
        """What is in ``item`` for every input, and the right answer."""
        names = [spec.name for spec in self.inputs]
        if isinstance(item, Mapping):
            target = next((item[key] for key in _ANSWERS if key in item and key not in names), None)
            if all(name in item for name in names):
                return [item[name] for name in names], target
            others = [key for key in item if key not in _ANSWERS]
            if len(names) == 1 and len(others) == 1:
                return [item[others[0]]], target
            missing = "`, `".join(name for name in names if name not in item)
            found = "`, `".join(str(key) for key in item)
            raise DataError(
                f"expected arrays named like the network's inputs `{missing}`, got `{found}`",
                hint="name the entries of the dict after the inputs; fix={name: value} fixes an input to a value",
            )
        if isinstance(item, (tuple, list)) and item and (_is_array(item[0]) or hasattr(item[0], "__array__")):
            if len(item) < len(names):
                wanted = "`, `".join(names)
                raise DataError(f"expected arrays for the inputs `{wanted}`, got {len(item)}")
            return list(item[: len(names)]), item[len(names)] if len(item) > len(names) else None
        if len(names) > 1:
            wanted = "`, `".join(names)
            raise DataError(
                f"expected a dict or a tuple with arrays for the inputs `{wanted}`, got {type(item).__name__}"
            )
        return [item], None

    def suited(self, spec: Input, a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """``a`` in the input's type, where integers lose nothing by it; floats are converted later."""
        if a.dtype.kind in "iu" and spec.dtype != a.dtype.name and spec.dtype.startswith(("int", "uint")):
            wanted = np.dtype(spec.dtype)
            if np.can_cast(a.dtype, wanted, "safe"):
                return a.astype(wanted)
        both_float = a.dtype.kind == "f" and spec.dtype in ("float16", "float32", "float64", "bfloat16")
        image = self.prepares_images and a.dtype == np.uint8
        if a.dtype.name == spec.dtype or both_float or image or a.dtype.name == "bfloat16":
            return a
        raise DataError(
            f"expected {spec.dtype} for the input `{spec.name}`, got {a.dtype.name}",
            hint=f"convert it: x.astype(np.{spec.dtype})"
            + (", and bring pixels to the range that the network was trained with" if a.dtype == np.uint8 else ""),
        )

    def batch_axis(self, spec: Input, a: np.ndarray[Any, Any]) -> int | None:
        """The axis of ``a`` along which samples lie, or ``None`` if it is one sample."""
        if self.prepares_images and a.dtype == np.uint8 and a.ndim in (3, 4):
            return None if a.ndim == 3 else 0
        if spec.whole is None:  # nothing is known of its shape
            return 0 if a.ndim else None
        if a.ndim == len(spec.shape):
            if not _fits(a.shape, spec.shape):
                raise _misfit(spec, a)
            return None
        if a.ndim == len(spec.shape) + 1:
            if _fits(a.shape[1:], spec.shape):
                return 0
            axis = spec.batch_axis
            if axis is not None and _fits(a.shape[:axis] + a.shape[axis + 1 :], spec.shape):
                return axis
        raise _misfit(spec, a)


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w is None or w == s for s, w in zip(shape, wanted))


def _misfit(spec: Input, a: np.ndarray[Any, Any]) -> DataError:
    known = [d for d in spec.shape if d is not None]
    hint = None
    if len(known) == 3 and a.ndim in (3, 4):
        if known[0] in (1, 3) and a.shape[-1] == known[0]:
            hint = "channels come first in this network: np.moveaxis(x, -1, -3)"
        elif known[-1] in (1, 3) and a.shape[-3] == known[-1]:
            hint = "channels come last in this network: np.moveaxis(x, -3, -1)"
    return DataError(f"expected shape {spec.text} for the input `{spec.name}`, got {list(a.shape)}", hint=hint)


def _split(target: Any, count: int, first: int) -> Sequence[Any]:
    """The right answers of the samples of a batch."""
    if target is None:
        return [None] * count
    if _is_array(target):
        target = array(target)
        size = target.shape[0] if target.ndim else 0
    elif isinstance(target, Sequence) and not isinstance(target, str):
        size = len(target)
    elif isinstance(target, Mapping):
        # A dict of batches, as loaders make of dicts.
        parts = {key: _split(value, count, first) for key, value in target.items()}
        return [{key: part[i] for key, part in parts.items()} for i in range(count)]
    else:
        size = 1
        target = [target]
    if size != count:
        raise DataError(f"expected {count} labels, one per sample, got {size}", places=[f"sample {first}"])
    answers: Sequence[Any] = target
    return answers


def _answer(target: Any, task: str | None, index: int) -> Any:
    """``target`` as the library takes it."""
    place = [f"sample {index}"]
    if target is None:
        raise DataError(
            "expected a label, got none",
            places=place,
            hint="give pairs of inputs and labels, or a dict with an entry `labels`",
        )
    found = array(target)
    if task == "segmentation" and found.ndim == 2 and found.dtype.kind in "iu":
        if found.size and (found.min() < 0 or found.max() > 65535):
            raise DataError("expected classes of pixels from 0 to 65535", places=place)
        return (found.shape[0], found.shape[1], found.ravel().tolist())
    if found.size == 1 and found.dtype.kind in "iub":
        label = int(found.reshape(()))
        if label < 0:
            raise DataError(f"label {label} is negative, expected a class from 0", places=place)
        return label
    if found.size == 1 and found.dtype.kind == "f":
        return float(found.reshape(()))
    raise DataError(
        f"expected a label, which is a number, got an array of shape {list(found.shape)}",
        places=place,
        hint="give the number of the class, or measure with metric= a function of outputs and targets",
    )


def _raw(a: np.ndarray[Any, Any]) -> tuple[str, list[int], bytes]:
    """Type, shape, and the bytes of the elements, little endian."""
    if a.dtype.byteorder == ">" or (a.dtype.byteorder == "=" and not np.little_endian):
        a = a.astype(a.dtype.newbyteorder("<"))
    return a.dtype.name, list(a.shape), a.tobytes()
