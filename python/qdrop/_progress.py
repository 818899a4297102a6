"""Progress of runs: bars by tqdm, plain lines, or a function."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

#: What ``progress`` may be: true for bars or lines, false for nothing, or a function that is called with every event.
Progress = bool | Callable[[Mapping[str, Any]], object] | None

# A function that is called with texts, and whether these are lines for people rather than events in JSON.
Receiver = tuple[Callable[[str], object] | None, bool]


def receiver(progress: Progress) -> Receiver:
    """What the library calls for ``progress``."""
    if progress is None or progress is False:
        return None, False
    if callable(progress):
        call = progress
        return (lambda text: call(json.loads(text))), False
    try:
        with warnings.catch_warnings():
            # Without widgets a notebook has bars of text, which is no reason to warn.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        return _print, True
    bars = _Bars(tqdm)
    return (lambda text: bars.event(json.loads(text))), False


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Bars:
    """One bar for the current stage or unit."""

    def __init__(self, tqdm: Any) -> None:
        self.tqdm = tqdm
        self.bar: Any = None

    def start(self, total: int | None, name: str) -> None:
        self.end()
        self.bar = self.tqdm(total=total, desc=name, leave=False, file=sys.stderr)

    def move(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def end(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def event(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "stage_started":
            if event["total"]:
                self.start(event["total"], event["stage"])
        elif kind == "stage_progress":
            if self.bar is None:
                self.start(event["total"], event["stage"])
            self.move(event["done"])
        elif kind == "unit_started":
            self.start(event["iterations"], f"unit {event['index'] + 1}/{event['total']} {event['name']}")
        elif kind == "unit_progress":
            if self.bar is not None:
                self.bar.set_postfix(loss=f"{event['loss']:.4g}", refresh=False)
            self.move(event["iteration"])
        elif kind == "note":
            self.tqdm.write(f"note: {event['message']}", file=sys.stderr)
        elif kind in ("unit_finished", "stage_finished"):
            self.end()
