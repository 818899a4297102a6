"""Writes docs/python-api.md, the reference of the Python package, from its signatures and their texts.

python scripts/python_reference.py     # in an environment in which the package is installed
"""

import inspect
import re
from pathlib import Path

import qdrop

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python-api.md"

HEAD = """\
# The Python package

Every function and class of the package `qdrop`, from its signatures. [In Python](python.md) shows how they are used, and what
networks, samples, options and metrics may be.
"""

# Functions in the order in which one meets them, then classes.
ORDER = ["quantize", "plan", "sensitivity", "evaluate", "compare", "demo", "Recipe", "QuantizedModel", "Plan", "Sensitivity"]
ORDER += ["Score", "Comparison", "Demo"]


def prose(text: str) -> str:
    """A docstring as Markdown: fields become a list, double quotes of code single ones, doctests blocks of code."""
    text = inspect.cleandoc(text).replace("``", "`")
    parts = []
    for part in re.split(r"\n\n", text):
        if part.startswith(">>>"):
            lines = [line.removeprefix(">>> ") if line.startswith(">>>") else f"# {line}" for line in part.splitlines()]
            parts.append("```python\n" + "\n".join(lines) + "\n```")
        elif part.startswith(":"):
            fields = re.split(r"\n(?=:)", part)
            parts.append("\n".join(map(field, fields)))
        else:
            parts.append(part)
    return "\n\n".join(parts)


def field(text: str) -> str:
    text = " ".join(line.strip() for line in text.splitlines())
    kind, name, rest = re.fullmatch(r":(param|raises) (\w+): (.*)", text).groups()
    return f"- `{name}`: {rest}" if kind == "param" else f"\nRaises `{name}` {rest}"


def signature(name: str, item: object) -> str:
    shown = str(inspect.signature(item)).replace("'", "")
    shown = re.sub(r"\(self(, )?", "(", shown)
    shown = shown.replace("typing.", "").replace("np.ndarray[Any, Any]", "np.ndarray")
    line = f"{name}{shown}"
    if len(line) > 110:
        inner, after = shown[1:].rsplit(")", 1)
        parts = re.split(r", (?![^\[]*\])", inner)
        line = f"{name}(\n" + "".join(f"    {p},\n" for p in parts) + f"){after}"
    return f"```py\n{line}\n```"


def members(kind: type) -> list[str]:
    """Public methods and properties, those of classes in between included."""
    found = {}
    for base in reversed(kind.__mro__[:-1]):
        if base.__module__.startswith("qdrop"):
            found.update({n: m for n, m in vars(base).items() if not n.startswith("_")})
    parts = []
    for name, member in found.items():
        if isinstance(member, property):
            result = str(inspect.signature(member.fget).return_annotation).replace("'", "")
            parts.append(f"### `{kind.__name__}.{name}`\n\n```py\n{name}: {result}\n```\n\n{prose(member.__doc__)}")
            continue
        function = getattr(kind, name)
        if inspect.isroutine(function) and function.__doc__:
            parts.append(f"### `{kind.__name__}.{name}`\n\n{signature(name, function)}\n\n{prose(function.__doc__)}")
    return parts


def entry(name: str) -> str:
    item = getattr(qdrop, name)
    parts = [f"## `{name}`"]
    if not inspect.isclass(item):
        return "\n\n".join([*parts, signature(name, item), prose(item.__doc__)])
    if name == "Demo":
        return "\n\n".join([*parts, prose(item.__doc__)])
    if name == "Recipe":
        parts.append(signature(name, item))
    return "\n\n".join([*parts, prose(item.__doc__), *members(item)])


def errors() -> str:
    kinds = [n for n in qdrop.__all__ if n.endswith("Error")]
    kinds.sort(key=lambda n: n != "Error")
    parts = ["## Errors"]
    for name in kinds:
        kind = getattr(qdrop, name)
        bases = " and ".join(f"`{b.__name__}`" for b in kind.__bases__)
        parts.append(f"### `{name}`\n\n{prose(kind.__doc__)}\n\nA subclass of {bases}.")
    return "\n\n".join(parts)


def page() -> str:
    """The text of the page."""
    missing = [n for n in qdrop.__all__ if n not in ORDER and not n.endswith("Error") and n != "__version__"]
    return "\n\n".join([HEAD.strip(), *map(entry, [*ORDER, *missing]), errors()]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
