#!/usr/bin/env python3
"""Searches settings of qdrop with Optuna: every trial is a run of `qdrop quantize` that measures what it wrote.

    optuna_search.py model.onnx --calib calib/ --eval test/ --trials 20 -- --input imagenet-norm -w 2 -a 4

Options behind `--` go to every run. The study lies in a file, so that several processes may work on it at once and a
search can be continued. Needs Python 3.10, the package optuna, and the program qdrop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import optuna


def score(command: Sequence[str], options: dict[str, float], metric: str) -> float:
    """What a run of `command` with `options`, by the names that the command line has for them, reaches in `metric`, in
    per cent. Raises optuna.TrialPruned if the run ends with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        line = [*command, "-o", str(Path(folder) / "trial.onnx"), "--no-report", "--format", "json", "--quiet"]
        line += [word for name, value in options.items() for word in (f"--{name}", f"{value:g}")]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != 0:
        raise optuna.TrialPruned(done.stderr.strip())
    return json.loads(done.stdout)["accuracy"]["result"][metric]


def search(command: Sequence[str], study: optuna.Study, trials: int, metric: str) -> optuna.trial.FrozenTrial:
    """Adds `trials` trials to `study`, and returns the best trial of it."""

    def objective(trial: optuna.Trial) -> float:
        options = {
            "lambda": trial.suggest_float("lambda", 1e-3, 1.0, log=True),
            "keep-probability": trial.suggest_float("keep-probability", 0.25, 1.0),
        }
        return score(command, options, metric)

    study.optimize(objective, n_trials=trials)
    return study.best_trial


def main() -> int:
    words = sys.argv[1:]
    here, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(description="Searches settings of qdrop with Optuna.")
    parser.add_argument("model", help="the float ONNX file")
    parser.add_argument("--calib", required=True, help="calibration samples")
    parser.add_argument("--eval", required=True, help="labelled samples that decide")
    parser.add_argument("--metric", default="top1", help="the metric to be raised [default: top1]")
    parser.add_argument("--trials", type=int, default=20, help="number of runs [default: 20]")
    parser.add_argument("--study", default="qdrop-study.log", help="file of the study [default: qdrop-study.log]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search [default: 0]")
    parser.add_argument("--qdrop", default="qdrop", help="the program [default: qdrop]")
    args = parser.parse_args(here)
    command = [args.qdrop, "quantize", args.model, "--calib", args.calib, "--eval", args.eval, *more]
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(args.study))
    study = optuna.create_study(
        storage=storage,
        study_name="qdrop",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=args.seed),
    )
    best = search(command, study, args.trials, args.metric)
    print(json.dumps({"trials": len(study.trials), args.metric: best.value, "options": best.params}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
