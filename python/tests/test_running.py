"""While a run works: progress, interruption, other threads and processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import SHORT

import qdrop


def test_events_come_in_order(demo: qdrop.Demo, quantized: qdrop.QuantizedModel) -> None:
    events: list[Mapping[str, Any]] = []
    done = qdrop.quantize(demo.model, demo.images, iterations=SHORT["iterations"], progress=events.append)
    assert done.to_bytes() == quantized.to_bytes()
    stages = [e["stage"] for e in events if e["event"] == "stage_started"]
    assert stages[0] == "simplify" and stages.index("calibrate") < stages.index("reconstruct") < stages.index("write")
    units = [e for e in events if e["event"] == "unit_finished"]
    assert [e["index"] for e in units] == list(range(len(units))) and len(units) > 3
    assert stages.count("reconstruct") == 1


def test_an_exception_from_a_callback_ends_the_run(demo: qdrop.Demo) -> None:
    class Enough(Exception):
        pass

    def progress(event: Mapping[str, Any]) -> None:
        if event["event"] == "unit_finished":
            raise Enough

    with pytest.raises(Enough):
        qdrop.quantize(demo.model, demo.images, iterations=500, progress=progress)


def test_progress_is_told_on_stderr(
    demo: qdrop.Demo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    qdrop.quantize(demo.model, demo.images, iterations=5)
    out, err = capsys.readouterr()
    assert out == "" and "unit 1 " in err and "it" in err, err
    monkeypatch.undo()
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    qdrop.quantize(demo.model, demo.images, iterations=5)
    out, err = capsys.readouterr()
    assert out == "" and "unit 1/" in err and "%" in err, err


LONG = """
import qdrop, sys
demo = qdrop.demo(64)
try:
    qdrop.quantize(demo.model, demo.images, iterations=int(sys.argv[2]), work_dir=sys.argv[1],
                   progress=lambda e: print(e["event"], e.get("unit", {}).get("resumed"), flush=True)).save(sys.argv[3])
except KeyboardInterrupt as stopped:
    print("stopped", *getattr(stopped, "__notes__", []), flush=True)
"""


def test_ctrl_c_stops_within_a_second_and_the_run_goes_on_later(demo: qdrop.Demo, tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out.onnx"
    line = [sys.executable, "-c", LONG, str(work), "150", str(out)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for words in process.stdout:
            if words.startswith("unit_finished"):
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        rest = process.stdout.read()
        took = time.monotonic() - start
        assert process.wait(10) == 0
    assert "stopped" in rest and not out.exists(), rest
    if sys.version_info >= (3, 11):
        assert "kept in" in rest and "the same call continues from there" in rest
    # Ending the interpreter takes some of it.
    assert took < 1.5, took
    kept = len(list(work.glob("*.unit")))
    assert kept >= 1
    resumed: list[bool] = []

    def progress(event: Mapping[str, Any]) -> None:
        if event["event"] == "unit_finished":
            resumed.append(event["unit"]["resumed"])

    again = qdrop.quantize(demo.model, demo.images, iterations=150, work_dir=work, progress=progress)
    assert resumed[:kept] == [True] * kept and not all(resumed)
    whole = qdrop.quantize(demo.model, demo.images, iterations=150, progress=False)
    assert again.to_bytes() == whole.to_bytes()
    assert len(list(work.glob("*.unit"))) > kept, "the directory is the caller's"


def test_a_handler_of_ones_own_is_called(demo: qdrop.Demo) -> None:
    class Alarm(Exception):
        pass

    def handler(number: int, frame: Any) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        start = time.monotonic()
        with pytest.raises(Alarm):
            qdrop.quantize(demo.model, demo.images, iterations=20000, progress=False)
        assert time.monotonic() - start < 2.5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_other_threads_run_meanwhile(demo: qdrop.Demo) -> None:
    ticks, done = 0, threading.Event()

    def count() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    start = time.monotonic()
    try:
        # Ctrl-C is the main thread's; a run on another one works too.
        found: list[qdrop.QuantizedModel] = []
        runner = threading.Thread(target=lambda: found.append(qdrop.quantize(demo.model, demo.images, **SHORT)))
        runner.start()
        qdrop.quantize(demo.model, demo.images, seed=7, **SHORT)
        runner.join()
    finally:
        done.set()
        thread.join()
    assert len(found) == 1
    # With the lock held it would be a tick every 5 ms at best, and none during long calls.
    assert ticks > 20 * (time.monotonic() - start), ticks


def _child(model: bytes, images: Any, queue: Any) -> None:
    queue.put(qdrop.quantize(model, images, **SHORT))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_processes_work(demo: qdrop.Demo, quantized: qdrop.QuantizedModel) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(demo.model, demo.images, queue))
    process.start()
    found = queue.get(timeout=120)
    process.join(30)
    assert process.exitcode == 0 and found.to_bytes() == quantized.to_bytes()
