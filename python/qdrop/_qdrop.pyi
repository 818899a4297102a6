"""The compiled part of the package, on the Rust library; nothing here is public."""

import os
from collections.abc import Callable
from typing import Any, final

__all__ = [
    "Collector",
    "Model",
    "Quantized",
    "Samples",
    "__version__",
    "answers",
    "compare",
    "demo",
    "evaluate",
    "plan",
    "quantize",
    "recipe_default",
    "recipe_from_json",
    "recipe_from_toml",
    "recipe_options",
    "recipe_to_json",
    "report_html",
    "report_text",
    "run",
    "save",
    "sensitivity",
    "sensitivity_merged",
    "sensitivity_shown",
]

__version__: str

_Path = str | os.PathLike[str]
_Progress = tuple[Callable[[str], object] | None, bool]
_Input = tuple[str, str, list[int | None], list[int | None] | None, int | None]

@final
class Model:
    @staticmethod
    def open(path: _Path, encodings: _Path | None) -> Model: ...
    @staticmethod
    def from_bytes(content: bytes) -> Model: ...
    def fix(self, name: str, values: list[float], needed: bool) -> Model: ...
    def check(self, recipe_toml: str) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def inputs(self) -> list[_Input]: ...
    @property
    def outputs(self) -> list[str]: ...

@final
class Collector:
    def __new__(cls, model: Model, recipe_toml: str) -> Collector: ...
    def __len__(self) -> int: ...
    def prepares_images(self) -> bool: ...
    def push(self, tensors: list[tuple[str, list[int], bytes]], answer: Any) -> None: ...
    def finish(self, limit: int | None) -> Samples: ...

@final
class Samples:
    @staticmethod
    def open(
        path: _Path, model: Model, recipe_toml: str, calibration: bool, limit: int | None
    ) -> Samples: ...
    def __len__(self) -> int: ...

@final
class Quantized:
    def save(self, path: _Path) -> None: ...

def quantize(
    model: Model,
    recipe_toml: str,
    calibration: Samples,
    evaluation: Samples | None,
    sensitivity: str | None,
    work_dir: _Path | None,
    runtime: _Path | None,
    whole: int,
    progress: _Progress,
) -> tuple[bytes | None, Quantized | None, str, str, str | None]: ...
def plan(
    model: Model,
    recipe_toml: str,
    sensitivity: str | None,
    calibration: Samples | None,
    shapes: list[list[int]] | None,
    samples: int,
) -> tuple[str, str]: ...
def evaluate(
    model: Model, recipe_toml: str, data: Samples, runtime: _Path | None, progress: _Progress
) -> str: ...
def answers(
    model: Model,
    data: Samples,
    threads: int,
    runtime: _Path | None,
    each: Callable[[int, list[tuple[list[int], bytes]]], None],
    progress: _Progress,
) -> None: ...
def sensitivity(
    model: Model, recipe_toml: str, data: Samples, stripe: tuple[int, int] | None, progress: _Progress
) -> str: ...
def compare(a: Model, b: Model, recipe_toml: str, data: Samples, progress: _Progress) -> tuple[str, str]: ...
def save(path: _Path, content: bytes, encodings: str | None) -> None: ...
def report_text(json: str) -> str: ...
def report_html(json: str) -> str: ...
def sensitivity_merged(shares: list[tuple[str, str]]) -> str: ...
def sensitivity_shown(json: str) -> tuple[str, str, str]: ...
def recipe_from_json(text: str) -> str: ...
def recipe_from_toml(text: str) -> str: ...
def recipe_to_json(text: str) -> str: ...
def recipe_default() -> str: ...
def recipe_options() -> list[tuple[str, str]]: ...
def demo(count: int, seed: int) -> tuple[bytes, int, bytes]: ...
def run(args: list[str]) -> int: ...
