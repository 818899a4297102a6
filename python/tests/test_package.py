"""The package as it is installed: types, size, time to import, documents, and notebooks."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, command

import qdrop

#: Bytes that the wheel may have, and milliseconds of the processor that the import may take beyond numpy's.
LARGEST, SLOWEST = 9_000_000, 100


def wheel() -> Path:
    """The newest wheel that was built, which is the one that is installed."""
    wheels = sorted((ROOT / "target" / "wheels").glob("qdrop-*.whl"), key=lambda p: p.stat().st_mtime)
    if not wheels:
        pytest.skip("no wheel was built in target/wheels")
    return wheels[-1]


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_wheel_is_small_and_whole() -> None:
    path = wheel()
    assert path.stat().st_size < LARGEST
    assert "-cp310-abi3-" in path.name
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"qdrop-{qdrop.__version__}.dist-info/METADATA").decode()
    sources = {f"qdrop/{p.name}" for p in (ROOT / "python" / "qdrop").iterdir() if p.suffix in (".py", ".pyi", ".typed")}
    sources |= {"qdrop/py.typed"}
    assert sources <= names, sources - names
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
    assert needs == ["Requires-Dist: numpy>=1.23"]


def test_the_import_is_quick() -> None:
    def milliseconds(code: str) -> float:
        timed = f"import time; s = time.process_time(); {code}; print((time.process_time() - s) * 1000)"
        return float(python("-c", f"import numpy; {timed}").stdout)

    assert statistics.median(milliseconds("import qdrop") for _ in range(5)) < SLOWEST
    heavy = python("-c", "import sys, qdrop; print([m for m in ('onnx', 'torch', 'tqdm', 'onnxruntime') if m in sys.modules])")
    assert heavy.stdout.strip() == "[]"


def test_the_stub_is_right() -> None:
    done = python("-m", "mypy.stubtest", "qdrop", "--mypy-config-file", str(ROOT / "pyproject.toml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_of_the_package_and_of_a_program_are_strict(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    config = str(ROOT / "pyproject.toml")
    done = python("-m", "mypy", "--config-file", config, "--strict", "-p", "qdrop")
    assert done.returncode == 0, done.stdout + done.stderr
    done = python("-m", "mypy", "--config-file", config, "--strict", str(program))
    assert done.returncode == 0, done.stdout + done.stderr
    program.write_text(PROGRAM.replace("q.save(Path", "q.sav(Path"))
    assert python("-m", "mypy", "--config-file", config, "--strict", str(program)).returncode == 1


PROGRAM = """
from pathlib import Path

import numpy as np

import qdrop


def top1(outputs: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", targets: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> float:
    return float((outputs.argmax(1) == targets).mean())


demo = qdrop.demo(64)
try:
    q = qdrop.quantize(demo.model, ({"input": x} for x in demo.images), weights=4, iterations=5, progress=print)
except qdrop.DataError as error:
    raise SystemExit(f"{error.places}: {error.hint or error.message}")
q.save(Path("out.onnx"))
nodes: int = len(q.model.graph.node)
seed: int = q.report["seed"]
score: qdrop.Score = qdrop.evaluate(q, (demo.images, demo.labels), metric=top1)
recipe: qdrop.Recipe = q.recipe.replace(weights={"bits": 3})
reveal: str = repr(qdrop.plan(demo.model, recipe=recipe)) + repr(qdrop.compare(demo.model, q, demo.images))
"""


def test_the_command_comes_with_the_package(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("qdrop")
    for line in ([str(script)], [sys.executable, "-m", "qdrop"]):
        done = subprocess.run([*line, "--version"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, f"qdrop {qdrop.__version__}\n"), done.stderr
    assert command("--help").returncode == 0
    failed = command("plan", "none.onnx")
    assert failed.returncode == 2 and failed.stderr.startswith("error: none.onnx: ")
    assert command("plan").returncode == 2 and command("nonsense").returncode == 2
    (tmp_path / "demo.onnx").write_bytes(qdrop.demo(1).model)
    assert command("inspect", "demo.onnx", folder=tmp_path).stdout.startswith("demo.onnx\n")


def test_the_reference_is_fresh() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import python_reference
    finally:
        sys.path.pop(0)
    want = python_reference.page()
    have = (ROOT / "docs" / "python-api.md").read_text()
    assert have == want, "docs/python-api.md is stale: run python scripts/python_reference.py"
    for name in qdrop.__all__:
        assert name == "__version__" or f"`{name}" in want, f"{name} has no entry"
        assert name == "__version__" or (getattr(qdrop, name).__doc__ or "").strip(), f"{name} has no text"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda p: p.name)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "outputs are not cleared"
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in code for output in cell.outputs]
    assert any("text/plain" in output.get("data", {}) for output in shown)
    page = any("srcdoc" in output.get("data", {}).get("text/html", "") for output in shown)
    assert page == (path.stem != "classifier")
    if path.stem == "detector":
        printed = "".join(output["text"] for output in shown if output.get("name") == "stdout")
        found = re.findall(r"^([a-z ]+): AP ([\d.]+), AP50 ([\d.]+)$", printed, re.M)
        assert [name for name, _, _ in found] == ["float", "whole network", "backbone and neck"], printed
        (ap, ap50), *quantized = [(float(a), float(b)) for _, a, b in found]
        assert ap > 25 and ap50 > 55, "the float detector finds little"
        assert all(a > ap - 6 and b > ap50 - 8 for a, b in quantized), printed
