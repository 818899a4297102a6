#!/usr/bin/env python3
"""Runs a sweep of qdrop, or a measurement of sensitivity, on a Ray cluster: every run or share is a task on some worker.

    qdrop_ray.py sweep grid.toml -o /shared/grid.sweep --cpus 4 --address auto
    qdrop_ray.py sensitivity -o sensitivity.json --shares 8 --cpus 4 --address auto -- model.onnx --calib calib/

Workers must see the files under the same names; of a sweep, the folder of results too. What a task whose worker dies was
doing is given to another worker: a run continues after the last unit that was finished, a share is measured anew. Runs
that are done are not repeated. Needs Python 3.10, the package ray, and the program qdrop on every worker.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

# Number of the option of prctl(2) that names the signal for a process whose parent dies.
PR_SET_PDEATHSIG = 1


class TaskFailed(RuntimeError):
    """A task that ended with an error: what it was, its exit status, and what it said last."""

    def __init__(self, name: str, status: int, said: str) -> None:
        super().__init__(name, status, said)
        self.name, self.status, self.said = name, status, said

    def __str__(self) -> str:
        return f"{self.name} ended with status {self.status}: {self.said}"


def _end_with_parent() -> None:
    """Ends the calling process when its parent does, so that nobody holds the run when its worker was killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(name: str, line: Sequence[str], folder: str) -> str:
    """Runs the command `line` in `folder`; what it says goes to stderr. Returns what it prints.

    Raises TaskFailed, with `name`, if it ends with an error.
    """
    # Other systems leave the program behind when a worker is killed; it goes on, and a sweep's run is then done.
    before = _end_with_parent if sys.platform == "linux" else None
    with tempfile.TemporaryFile("w+") as printed:
        said = ""
        pipes = {"stdout": printed, "stderr": subprocess.PIPE}
        with subprocess.Popen(line, cwd=folder, text=True, preexec_fn=before, **pipes) as program:
            for text in program.stderr:
                print(text, end="", file=sys.stderr, flush=True)
                said = text.strip() if text.startswith("error:") or not said.startswith("error:") else said
            status = program.wait()
        if status != 0:
            raise TaskFailed(name, status, said)
        printed.seek(0)
        return printed.read()


def run_all(lines: dict[str, Sequence[str]], cpus: int, retries: int) -> list[str]:
    """Runs all commands, by name, on the cluster. Returns what they print, in order.

    Raises TaskFailed for the first that failed, once all others have ended.
    """
    # An error of a command is no accident of its worker, and would come again.
    task = ray.remote(num_cpus=cpus, max_retries=retries, retry_exceptions=False)(run)
    tasks = [task.remote(name, line, os.getcwd()) for name, line in lines.items()]
    failed: TaskFailed | None = None
    left = tasks
    while left:
        (done, *_), left = ray.wait(left)
        try:
            ray.get(done)
        except TaskFailed as error:
            failed = failed or error
            print(f"error: {error}", file=sys.stderr)
    if failed:
        raise failed
    return ray.get(tasks)


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

    Returns the results of all runs, in order, as `qdrop sweep --format json` prints them. Raises TaskFailed for
    the first run that failed, once all others have ended.
    """
    command = [qdrop, "sweep", str(Path(file).resolve()), "-o", str(Path(output_dir).resolve())]
    command += ["--keep-models"] if keep_models else []
    listed = json.loads(subprocess.check_output([*command, "--list", "--format", "json"]))
    left = [str(one["index"]) for one in listed if not one["done"]]
    run_all({f"run {i}": [*command, "--index", i, "--threads", str(cpus)] for i in left}, cpus, retries)
    return json.loads(subprocess.check_output([*command, "--format", "json"]))


def sensitivity(
    words: Sequence[str],
    output: str | Path,
    *,
    shares: int,
    cpus: int = 1,
    retries: int = 3,
    qdrop: str = "qdrop",
) -> dict[str, Any]:
    """Measures what `qdrop sensitivity` with these `words` does, in `shares` on the Ray cluster that `ray.init` has joined.

    `words` are the model and options other than `-o`; paths in them begin at the current folder, which every worker must
    see. The file `output` is the one that one machine alone would write. The other arguments are those of `sweep`.

    Returns the content of a file in JSON. Raises TaskFailed for the first share that failed, once all others have ended.
    """
    command = [qdrop, "sensitivity", *words, "--threads", str(cpus), "--format", "json", "--stripe"]
    stripes = [f"{i}/{shares}" for i in range(shares)]
    measured = run_all({f"share {stripe}": [*command, stripe] for stripe in stripes}, cpus, retries)
    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder, f"{i}.json") for i in range(shares)]
        for part, text in zip(parts, measured):
            part.write_text(text)
        merge = [qdrop, "sensitivity", "--merge", *parts, "-o", output, "--format", "json"]
        return json.loads(subprocess.check_output(merge))


def main() -> int:
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--address", help="the cluster to join, such as auto [default: one on this machine]")
    both.add_argument("--local-cpus", type=int, help="processors of a cluster on this machine [default: all]")
    both.add_argument("--cpus", type=int, default=1, help="processors of each task [default: 1]")
    both.add_argument("--retries", type=int, default=3, help="how often a task is begun anew when its worker dies")
    both.add_argument("--qdrop", default="qdrop", help="the program on the workers [default: qdrop]")
    parser = argparse.ArgumentParser(description="Runs qdrop on a Ray cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("sweep", parents=[both], help="do the runs of a sweep")
    one.add_argument("file", help="the TOML file of the sweep")
    one.add_argument("-o", "--output-dir", required=True, help="folder for results, which all workers see")
    one.add_argument("--keep-models", action="store_true", help="keep the quantized networks")
    one = commands.add_parser("sensitivity", parents=[both], help="measure sensitivity in shares")
    one.add_argument("words", nargs="+", help="the model and options of qdrop sensitivity, behind --")
    one.add_argument("-o", "--output", required=True, help="file to write")
    one.add_argument("--shares", type=int, required=True, help="number of tasks that divide the measurement")
    args = parser.parse_args()
    ray.init(address=args.address, num_cpus=None if args.address else args.local_cpus)
    options = {"cpus": args.cpus, "retries": args.retries, "qdrop": args.qdrop}
    try:
        if args.command == "sweep":
            results = sweep(args.file, args.output_dir, keep_models=args.keep_models, **options)
            print(f"{len(results)} runs are done; table and page are in {args.output_dir}")
        else:
            sensitivity(args.words, args.output, shares=args.shares, **options)
            print(f"{args.shares} shares are measured and joined in {args.output}")
    except TaskFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
