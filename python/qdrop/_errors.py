"""Exceptions of the package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

__all__ = [
    "DataError",
    "Error",
    "InternalError",
    "IoError",
    "ModelError",
    "NumericError",
    "RecipeError",
    "UnsupportedError",
]


class Error(Exception):
    """What every error of qdrop is an instance of.

    ``kind`` is one of ``model``, ``unsupported``, ``data``, ``recipe``, ``io``, ``numeric`` and ``internal``; ``places`` are
    where it occurred, from the innermost to the outermost; ``message`` says what was expected and what was found; ``hint``
    says what to do, if that is known.
    """

    kind: ClassVar[str] = "internal"
    places: tuple[str, ...]
    message: str
    hint: str | None

    def __init__(self, message: str, *, places: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.places = tuple(places)
        self.hint = hint

    def __str__(self) -> str:
        line = ": ".join([*reversed(self.places), self.message])
        return line if self.hint is None else f"{line}\nhint: {self.hint}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, places={self.places!r}, hint={self.hint!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.message, self.places, self.hint, getattr(self, "errno", None))


class ModelError(Error, ValueError):
    """The model file is damaged, or violates the ONNX specification."""

    kind = "model"


class UnsupportedError(Error, NotImplementedError):
    """The model is valid, but needs something that is not supported."""

    kind = "unsupported"


class DataError(Error, ValueError):
    """Samples, labels or images are missing, damaged, or of the wrong shape or type."""

    kind = "data"


class RecipeError(Error, ValueError):
    """An option has a bad value, or is not known."""

    kind = "recipe"


class IoError(Error, OSError):
    """The operating system refused to read or write; ``errno`` is its number, if it gave one."""

    kind = "io"


class NumericError(Error, ArithmeticError):
    """NaN or infinity where a finite number was needed."""

    kind = "numeric"


class InternalError(Error, RuntimeError):
    """A bug in qdrop."""

    kind = "internal"


_CLASSES: dict[str, type[Error]] = {
    c.kind: c
    for c in (ModelError, UnsupportedError, DataError, RecipeError, IoError, NumericError, InternalError)
}

# Options of the command line that have another name here.
_NAMES = {
    "calib": "calibration",
    "data": "the samples",
    "file-format": "format",
    "ignore-label": "ignore_labels",
    "iters": "iterations",
    "activation-bits": "activations",
    "weight-bits": "weights",
    "lambda": "lambda_",
    "runtime-library": "runtime",
    "shape": "shapes",
    "target-bitops": "bitops",
    "target-size": "size",
}


def in_python(hint: str) -> str:
    """``hint`` with commands and options of the command line under their names here."""

    def name(match: re.Match[str]) -> str:
        option = match.group(1)
        return f"`{_NAMES.get(option, option.replace('-', '_'))}`"

    hint = re.sub(r"`qdrop sensitivity --merge[^`]*`", "`qdrop.Sensitivity.merge`", hint)
    hint = re.sub(r"`qdrop (plan|sensitivity|compare)\b[^`]*`", r"`qdrop.\1`", hint)
    return re.sub(r"`?(?<![\w-])--([a-z][a-z0-9-]*)`?", name, hint)


def made(kind: str, places: Sequence[str], message: str, hint: str | None, errno: int | None) -> Error:
    """The exception for an error of the library."""
    hint = None if hint is None else in_python(hint)
    return _restored(_CLASSES.get(kind, InternalError), in_python(message), tuple(map(in_python, places)), hint, errno)


def _restored(
    kind: type[Error], message: str, places: tuple[str, ...], hint: str | None, errno: int | None
) -> Error:
    error = kind(message, places=places, hint=hint)
    if isinstance(error, OSError):
        error.errno = errno
    return error
