#!/usr/bin/env python3
"""Runs a sweep of qdrop on a Ray cluster: every run is a task that starts `qdrop sweep --index` on some worker.

    ray_sweep.py grid.toml -o /shared/grid.sweep --cpus 4 --address auto

The folder of results must be one that all workers see. Runs that are done are not repeated. A task whose worker dies
is given to another worker, and continues after the last unit that was finished. Needs Python 3.10, the package ray,
and the program qdrop on every worker.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

# Number of the option of prctl(2) that names the signal for a process whose parent dies.
PR_SET_PDEATHSIG = 1


class RunFailed(RuntimeError):
    """A run of the sweep that ended with an error: its index, its exit status, and what it said last."""

    def __init__(self, index: int, status: int, said: str) -> None:
        super().__init__(index, status, said)
        self.index, self.status, self.said = index, status, said

    def __str__(self) -> str:
        return f"run {self.index} ended with status {self.status}: {self.said}"


def _end_with_parent() -> None:
    """Ends the calling process when its parent does, so that nobody holds the run when its worker was killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(command: Sequence[str], index: int, threads: int) -> int:
    """Does the run `index` of the sweep that `command` names, with `threads` threads; what it says goes to stderr.

    Returns the index. Raises RunFailed if the run ends with an error.
    """
    line = [*command, "--index", str(index), "--threads", str(threads)]
    # Other systems leave the program behind when a worker is killed; it goes on with its run, which is then done.
    before = _end_with_parent if sys.platform == "linux" else None
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=before) as program:
        said = ""
        for text in program.stderr:
            print(text, end="", file=sys.stderr, flush=True)
            said = text.strip() if text.startswith("error:") or not said.startswith("error:") else said
        status = program.wait()
    if status != 0:
        raise RunFailed(index, status, said)
    return index


def sweep(
    file: str | Path,
    output_dir: str | Path,
    *,
    cpus: int = 1,
    keep_models: bool = False,
    retries: int = 3,
    qdrop: str = "qdrop",
) -> list[dict[str, Any]]:
    """Does all runs of the sweep in `file` that are not done yet on the Ray cluster that `ray.init` has joined.

    Results are in `output_dir`, which every worker must see. Each run has `cpus` processors, and is given to another
    worker up to `retries` times when its own dies. `qdrop` is the program on the workers.

    Returns the results of all runs, in order, as `qdrop sweep --format json` prints them. Raises RunFailed for
    the first run that failed, once all others have ended.
    """
    command = [qdrop, "sweep", str(Path(file).resolve()), "-o", str(Path(output_dir).resolve())]
    command += ["--keep-models"] if keep_models else []
    listed = json.loads(subprocess.check_output([*command, "--list", "--format", "json"]))
    # An error of a run is no accident of its worker, and would come again.
    task = ray.remote(num_cpus=cpus, max_retries=retries, retry_exceptions=False)(run)
    open_tasks = [task.remote(command, one["index"], cpus) for one in listed if not one["done"]]
    failed: RunFailed | None = None
    while open_tasks:
        (done, *_), open_tasks = ray.wait(open_tasks)
        try:
            ray.get(done)
        except RunFailed as error:
            failed = failed or error
            print(f"error: {error}", file=sys.stderr)
    if failed:
        raise failed
    return json.loads(subprocess.check_output([*command, "--format", "json"]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a sweep of qdrop on a Ray cluster.")
    parser.add_argument("file", help="the TOML file of the sweep")
    parser.add_argument("-o", "--output-dir", required=True, help="folder for results, which all workers see")
    parser.add_argument("--address", help="the cluster to join, such as auto [default: one on this machine]")
    parser.add_argument("--local-cpus", type=int, help="processors of a cluster on this machine [default: all]")
    parser.add_argument("--cpus", type=int, default=1, help="processors of each run [default: 1]")
    parser.add_argument("--retries", type=int, default=3, help="how often a run is begun anew when its worker dies")
    parser.add_argument("--keep-models", action="store_true", help="keep the quantized networks")
    parser.add_argument("--qdrop", default="qdrop", help="the program on the workers [default: qdrop]")
    args = parser.parse_args()
    ray.init(address=args.address, num_cpus=None if args.address else args.local_cpus)
    options = {"cpus": args.cpus, "keep_models": args.keep_models, "retries": args.retries, "qdrop": args.qdrop}
    try:
        results = sweep(args.file, args.output_dir, **options)
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(results)} runs are done; table and page are in {args.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
