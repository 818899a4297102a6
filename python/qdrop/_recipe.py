"""Recipes: all options of a run."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import _qdrop
from ._errors import IoError, RecipeError

__all__ = ["Recipe"]

# Options that several sections have, and the one that is meant when an option is given by its key alone.
_MEANT = {"preset": "method", "samples": "input"}
# The option that a section's name stands for when it is given something other than a dict.
_MAIN = {"weights": "bits", "activations": "bits", "method": "name", "scope": "part", "input": "preset"}


class Recipe:
    """All options of a run, as a recipe file of the command line has them.

    Options are given by their keys (``iterations=500``, ``samples=256``, ``granularity="layer"``), or by section where several
    sections have the key (``weights={"bits": 4, "symmetric": True}``); ``weights=4`` is short for ``weights={"bits": 4}``, and
    so are ``activations=4``, ``method="rtn"``, ``scope="backbone-neck"`` and ``input="imagenet"``. ``override`` is a list of
    dicts, one per exception. An underscore may stand behind a key that is a word of Python (``lambda_``). ``None`` leaves an
    option at its default. ``Recipe.describe()`` explains every option.

    >>> Recipe(weights=3, iterations=500)
    Recipe(weights={'bits': 3}, method={'iterations': 500})
    """

    __slots__ = ("_toml",)
    _toml: str

    def __init__(self, **options: Any) -> None:
        self._toml = _qdrop.recipe_from_json(_json(_sections(options)))

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """The recipe in ``text``, as recipe files have it."""
        recipe = cls.__new__(cls)
        recipe._toml = _qdrop.recipe_from_toml(text)
        return recipe

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """The recipe in the file at ``path``."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise RecipeError("expected TOML, got bytes that are not UTF-8", places=[str(path)]) from None
        except OSError as error:
            raised = IoError(error.strerror or str(error), places=[str(path)])
            raised.errno = error.errno
            raise raised from None
        return cls.from_toml(text)

    @staticmethod
    def describe() -> str:
        """Every option with its meaning and its default, as a recipe file."""
        return _qdrop.recipe_default()

    def to_toml(self) -> str:
        """The recipe as the text of a recipe file."""
        return self._toml

    def to_dict(self) -> dict[str, Any]:
        """The options by section, with defaults; options that the method and the preset decide are left out if not set."""
        options: dict[str, Any] = json.loads(_qdrop.recipe_to_json(self._toml))
        order = dict.fromkeys(section for section, _ in _qdrop.recipe_options())
        return {section: options[section] for section in order if section in options}

    def replace(self, **options: Any) -> Recipe:
        """The recipe with other values for some options."""
        merged = self.to_dict()
        for section, values in _sections(options).items():
            merged[section] = values if isinstance(values, list) else {**merged.get(section, {}), **values}
        recipe = Recipe.__new__(Recipe)
        recipe._toml = _qdrop.recipe_from_json(_json(merged))
        return recipe

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe into the file at ``path``, which is whole or as it was before."""
        _qdrop.save(os.fspath(path), self._toml.encode(), None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._toml == other._toml

    def __hash__(self) -> int:
        return hash(self._toml)

    def __repr__(self) -> str:
        default = Recipe().to_dict()
        parts = []
        for section, values in self.to_dict().items():
            if isinstance(values, list):
                changed: Any = values
            else:
                changed = {k: v for k, v in values.items() if v != default.get(section, {}).get(k)}
            if changed:
                parts.append(f"{section}={changed!r}")
        return f"Recipe({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Recipe.from_toml, (self._toml,)


def _sections(options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` by section; those that are ``None`` are left out."""
    by_key: dict[str, list[str]] = {}
    for section, key in _qdrop.recipe_options():
        if section != "override":
            by_key.setdefault(key, []).append(section)
    names = {section for sections in by_key.values() for section in sections} | {"override"}
    found: dict[str, Any] = {}
    for given, value in options.items():
        name = given.rstrip("_")
        if value is None:
            continue
        if name in names and isinstance(value, Mapping):
            found.setdefault(name, {}).update({k: v for k, v in value.items() if v is not None})
        elif name == "override":
            found[name] = list(value)
        elif name in _MAIN:
            found.setdefault(name, {})[_MAIN[name]] = value
        elif name in _MEANT:
            found.setdefault(_MEANT[name], {})[name] = value
        elif len(by_key.get(name, ())) == 1:
            found.setdefault(by_key[name][0], {})[name] = value
        elif name in by_key:
            ways = " or ".join(f"{section}={{{name!r}: ...}}" for section in by_key[name])
            raise RecipeError(f"the option `{name}` is in several sections", hint=f"give {ways}")
        elif name in names:
            raise RecipeError(f"expected a dict of options for `{name}`, got {type(value).__name__}")
        else:
            near = difflib.get_close_matches(name, [*by_key, *names], 1, 0.6)
            hint = f"did you mean `{near[0]}`?" if near else "Recipe.describe() explains every option"
            raise RecipeError(f"unknown option `{given}`", hint=hint)
    return found


def _json(sections: Mapping[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        raise RecipeError(f"expected a number, a text, a list or a dict, got {type(value).__name__}")

    return json.dumps(sections, default=plain)
