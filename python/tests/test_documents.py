"""The blocks of Python in the documents do what they say.

All pages but the one on the package stand in a folder with small files under the names that they use. The documentation's test
of the command line leaves that folder in ``target/tmp/documents``; ``QDROP_DOCUMENTS`` names another place.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import shutil
import symtable
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, command

import qdrop
from qdrop import _qdrop

FOLDER = Path(os.environ.get("QDROP_DOCUMENTS") or ROOT / "target" / "tmp" / "documents")
#: Iterations of calls that learn, so that all pages together take a minute.
ITERATIONS = 3
#: Modules whose blocks are run where they are installed.
OPTIONAL = {"PIL", "onnxruntime", "openvino", "torch"}
#: Modules whose blocks are only compiled: they load weights from elsewhere, need a device or a cluster.
NOT_RUN = {"finn", "keras", "paddle", "qdrop_ray", "qonnx", "ray", "torchvision", "ultralytics"}
#: What pages take for given.
GIVEN: dict[str, Any] = {
    "images": np.zeros((2, 3, 32, 32), np.float32),
    "samples": np.zeros((40, 3, 224, 224), np.float32),
    "labels": np.zeros(40, np.int64),
    "ids": np.zeros((40, 8), np.int64),
    "mask": np.ones((40, 8), np.int64),
}
PAGES = sorted(p for p in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")] if "\n```python\n" in p.read_text())


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line and text of every block of Python in ``page``."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)
    return [(text[: m.start()].count("\n") + 2, m.group(1)) for m in found]


def modules(code: str) -> set[str]:
    """The modules that ``code`` imports, by their first names."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found


def names(code: str) -> tuple[set[str], set[str]]:
    """The names that ``code`` sets, and those that it reads without setting them."""
    symbols = symtable.symtable(code, "block", "exec").get_symbols()
    made = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    return made, {s.get_name() for s in symbols if s.is_referenced()} - made


def is_run(code: str, left_out: set[str]) -> bool:
    """Whether ``code`` can be run here: its modules are there, and it reads no name of a block that was ``left_out``."""
    wanted = modules(code)
    missing = {m for m in wanted if m in OPTIONAL and importlib.util.find_spec(m) is None}
    return not (wanted & NOT_RUN or missing or names(code)[1] & left_out)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Calls that learn take few iterations."""
    whole: Callable[..., qdrop.QuantizedModel] = qdrop.quantize

    def quantize(*given: Any, **options: Any) -> qdrop.QuantizedModel:
        more = {} if options.get("method") == "rtn" else {"iterations": ITERATIONS}
        return whole(*given, **{"progress": False, **options, **more})

    monkeypatch.setattr(qdrop, "quantize", quantize)
    yield


def run(page: Path, folder: Path) -> tuple[int, int]:
    """Runs the blocks of ``page`` in ``folder``, one after the other; how many, and how many were left out."""
    known, left_out, counts = dict(GIVEN), set[str](), [0, 0]
    if page.name == "python-api.md":
        # Its text is that of the package, where names stand alone.
        known |= {name: getattr(qdrop, name) for name in qdrop.__all__}
    for line, code in blocks(page):
        compiled = compile("\n" * (line - 1) + code, str(page.relative_to(ROOT)), "exec")
        if not is_run(code, left_out):
            left_out |= names(code)[0]
            counts[1] += 1
            continue
        left_out -= names(code)[0]
        exec(compiled, known)
        counts[0] += 1
    return counts[0], counts[1]


def test_the_page_on_the_package_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    count, left_out = run(ROOT / "docs" / "python.md", tmp_path)
    assert count >= 9 and left_out <= 1, "hardly a block was run"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "python.md"], ids=lambda p: p.name)
@pytest.mark.usefixtures("short")
def test_pages_do_what_they_say(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not FOLDER.is_dir():
        how = "run `cargo test --workspace --test documentation` first"
        if os.environ.get("QDROP_REQUIRE_DOCUMENTS") == "1":
            pytest.fail(f"{FOLDER} is not there: {how}")
        pytest.skip(how)
    folder = tmp_path / "folder"
    shutil.copytree(FOLDER, folder)
    monkeypatch.chdir(folder)
    run(page, folder)


def test_blocks_of_the_package_are_never_left_out() -> None:
    for page in PAGES:
        unknown = set[str]()
        for line, code in blocks(page):
            place = f"{page.name}, line {line}"
            here = modules(code)
            # Names that blocks of other packages set may be read by others of their kind only.
            ours = "qdrop" in here or "qdrop." in code
            assert not (ours and here & NOT_RUN), f"{place}: is not run"
            assert not (ours and names(code)[1] & unknown), f"{place}: reads what is not run"
            if here & NOT_RUN:
                unknown |= names(code)[0]
            strange = {m for m in here - OPTIONAL - NOT_RUN if importlib.util.find_spec(m) is None}
            assert not strange, f"{place}: nobody can run {strange}"


def test_pairs_stand_behind_their_commands() -> None:
    count = 0
    for page in PAGES:
        text = page.read_text()
        count += (pairs := len(re.findall(r"^```\n\nIn Python:\n\n```python\n", text, re.M)))
        assert pairs == len(re.findall(r"^In Python:", text, re.M)), page.name
    assert count >= 40, "hardly a pair was found"


#: Options of `qdrop quantize` and `qdrop sensitivity` that are no keywords: what a call returns, or prints, says it.
OTHERS = {"calib", "format", "help", "merge", "no-report", "output", "quiet", "report", "runtime-library", "save-recipe", "sort",
          "units", "verbose"}


def test_keywords_are_named_as_options_or_listed() -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    rows = re.findall(r"^\| (`-.*?) \| (.*?) \|$", text, re.M)
    listed = {name for cell, _ in rows for name in re.findall(r"`--([a-z0-9-]+)`", cell)}
    keys = {key for _, key in _qdrop.recipe_options()} | {section for section, _ in _qdrop.recipe_options()}
    arguments = set(inspect.signature(qdrop.quantize).parameters) | set(inspect.signature(qdrop.sensitivity).parameters)
    options = set[str]()
    for name in ("quantize", "sensitivity"):
        options |= set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", command(name, "--help").stdout, re.M))
    assert len(options) > 60, "hardly an option was found"
    same = {option for option in options if option.replace("-", "_") in keys | arguments}
    assert options - listed - OTHERS == same - listed - OTHERS, options - listed - OTHERS - same
    assert listed <= options, listed - options
    named = set(re.findall(r"`([a-z_]+?)_?(?:=[^`]*)?`", " ".join(cell for _, cell in rows)))
    assert named <= keys, named - keys
