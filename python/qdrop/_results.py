"""Results of runs."""

from __future__ import annotations

import html as _html
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _qdrop
from ._errors import DataError, IoError, RecipeError, UnsupportedError, in_python
from ._recipe import Recipe

if TYPE_CHECKING:
    import onnx

__all__ = ["Comparison", "Plan", "QuantizedModel", "Score", "Sensitivity"]


def _frame(page: str) -> str:
    """``page``, a whole document, inside another one."""
    text = _html.escape(page, quote=True)
    return (
        f'<iframe srcdoc="{text}" sandbox="allow-scripts" loading="lazy" '
        'style="width: 100%; height: 40em; border: 1px solid #8884"></iframe>'
    )


class QuantizedModel:
    """A quantized network with the report of the run that made it. It can be pickled.

    Printed, it shows the tables that the command line prints; in a notebook, the page of the report.
    """

    def __init__(
        self,
        content: bytes | None,
        report: str,
        recipe: str,
        encodings: str | None,
        kept: _qdrop.Quantized | None = None,
    ) -> None:
        self._content = content
        self._report = report
        self._recipe = recipe
        self._encodings = encodings
        self._kept = kept

    def to_bytes(self) -> bytes:
        """The network as the bytes of an ONNX file; an ``UnsupportedError`` if it has more than about 2 GB."""
        if self._content is None:
            raise UnsupportedError("the network is too large for one piece of bytes", hint="write it with save(path)")
        return self._content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the network to ``path`` as an ONNX file, with an encodings file next to it if the target needs one. The file
        is whole, or as it was before. An ``IoError`` if it cannot be written."""
        if self._kept is not None:
            self._kept.save(os.fspath(path))
        else:
            _qdrop.save(os.fspath(path), self.to_bytes(), self._encodings)

    @property
    def model(self) -> onnx.ModelProto:
        """The network as an ``onnx.ModelProto``; needs the package ``onnx``."""
        import onnx

        return onnx.load_from_string(self.to_bytes())

    @property
    def report(self) -> dict[str, Any]:
        """What was done and measured: the JSON of the report, as a dict."""
        report: dict[str, Any] = json.loads(self._report)
        return report

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the bits that the run chose as overrides: it gives the same network again."""
        return Recipe.from_toml(self._recipe)

    @property
    def encodings(self) -> str | None:
        """The AIMET encodings as JSON; ``None`` unless the target needs them."""
        return self._encodings

    def html(self) -> str:
        """The page of the report, a whole HTML document that loads nothing."""
        return _qdrop.report_html(self._report)

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Writes the report: as a page if ``path`` ends in ``.html``, as JSON if it ends in ``.json``."""
        _save_text(path, {".html": self.html, ".json": lambda: self._report})

    def _network(self) -> _qdrop.Model:
        if self._kept is None:
            return _qdrop.Model.from_bytes(self.to_bytes())
        with tempfile.TemporaryDirectory(prefix="qdrop-") as folder:
            path = os.path.join(folder, "model.onnx")
            self._kept.save(path)
            return _qdrop.Model.open(path, None)

    def __repr__(self) -> str:
        return in_python(_qdrop.report_text(self._report).rstrip("\n"))

    def _repr_html_(self) -> str:
        return _frame(self.html())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantizedModel):
            return NotImplemented
        return (self._content, self._report, self._encodings) == (other._content, other._report, other._encodings)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return QuantizedModel, (self.to_bytes(), self._report, self._recipe, self._encodings)


class _Shown:
    """A result as JSON and as tables."""

    def __init__(self, text: str, report: str) -> None:
        self._text = text
        self._report = report

    @property
    def report(self) -> dict[str, Any]:
        """The JSON that the command line prints, as a dict."""
        report: dict[str, Any] = json.loads(self._report)
        return report

    def __repr__(self) -> str:
        return in_python(self._text.rstrip("\n"))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, _Shown) and self._report == other._report

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._text, self._report)


class Plan(_Shown):
    """What quantizing would do: units, layers, activation sites, bits, memory, and what stays float and why."""


class Comparison(_Shown):
    """The difference between two networks, value by value."""

    @property
    def values(self) -> list[dict[str, Any]]:
        """One dict per value, in the order of computing: ``name``, ``operator``, ``snr_db`` (``None`` if nothing differs),
        ``max_abs``, ``cosine`` and ``elements``."""
        values: list[dict[str, Any]] = self.report["values"]
        return values


class Sensitivity:
    """How the bits of each layer and activation alone affect the outputs; ``quantize`` can choose bits by it."""

    def __init__(self, report: str) -> None:
        self._report = report
        self._text, self._page, self._csv = _qdrop.sensitivity_shown(report)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """Reads a file that ``save`` or ``qdrop sensitivity -o`` wrote as JSON."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raised = IoError(error.strerror or str(error), places=[str(path)])
            raised.errno = error.errno
            raise raised from None
        except UnicodeDecodeError:
            raise DataError("expected sensitivities in JSON", places=[str(path)]) from None
        try:
            return cls(text)
        except DataError as error:
            error.places += (str(path),)
            raise

    @classmethod
    def merge(cls, shares: Iterable[Sensitivity]) -> Sensitivity:
        """Joins all shares that ``sensitivity(..., stripe=(i, n))`` measured, in any order: the same as if everything had been
        measured in one call."""
        return cls(_qdrop.sensitivity_merged([(f"shares[{i}]", share._report) for i, share in enumerate(shares)]))

    @property
    def report(self) -> dict[str, Any]:
        """The JSON that ``qdrop sensitivity`` writes, as a dict: curves by layer and by activation."""
        report: dict[str, Any] = json.loads(self._report)
        return report

    def html(self) -> str:
        """A page with a chart, a whole HTML document that loads nothing."""
        return self._page

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file: ``path`` ends in ``.json``, ``.csv`` or ``.html``."""
        _save_text(path, {".json": lambda: self._report, ".csv": lambda: self._csv, ".html": lambda: self._page})

    def __repr__(self) -> str:
        return self._text.rstrip("\n")

    def _repr_html_(self) -> str:
        return _frame(self._page)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sensitivity) and self._report == other._report

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Sensitivity, (self._report,)


class Score(dict[str, Any]):
    """Metrics by name, and the number of ``samples`` that were measured."""

    samples: int

    def __init__(self, metrics: dict[str, Any], samples: int) -> None:
        super().__init__(metrics)
        self.samples = samples

    def __repr__(self) -> str:
        return f"Score({super().__repr__()}, samples={self.samples})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Score, (dict(self), self.samples)


def _save_text(path: str | os.PathLike[str], forms: dict[str, Any]) -> None:
    ending = Path(path).suffix.lower()
    if ending not in forms:
        raise RecipeError(f"expected a file name that ends in {' or '.join(forms)}", places=[str(path)])
    _qdrop.save(os.fspath(path), forms[ending]().encode(), None)
