#!/usr/bin/env python3
"""Quantizes networks with qdrop and lets every ONNX Runtime judge the written files.

usage: every_version.py QDROP [--cases DIR] [--shared DIR] [--runtimes DIR] [--pending FILE] [--only NAME] [--keep DIR]
                        [--json] [FILE.onnx ...]
       every_version.py --settled [--cases DIR] [--pending FILE]

QDROP is the program. It quantizes the demo's network, ResNet-20 of --shared (default: $QDROP_SHARED, else ../shared; left
out where there is none), and every case of --cases (default: `cases` in --shared), as its cases.json says. What is written
runs in every environment of --runtimes (default: $QDROP_RUNTIMES, else target/ort; scripts/runtimes.sh makes them) at the
default optimisation level, and is held against the float network, in that version, with optimisations off. What cases.json
or TRIED below names in dB is the least that counts as right. FILE.onnx are judged too, on random inputs: both
optimisation levels must agree.

Prints a row a file and a column a version: dB, `fails` where the file does not load or run, `-` where the float network
does not run in that version. Behind them are the layers (convolutions, products) that the newest version computes in
integers and in float. What falls short is marked with *, with ~ where the list of pending cases names it. Exit status 1
when something else falls short. --settled prints the cases that no line of that list names for this interpreter's ONNX
Runtime, and does no more.
Needs scripts/judge/requirements.txt.
"""

import argparse
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from importlib import metadata

import numpy as np
from common import image

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
DEMO = REPOSITORY / "crates/qdrop-cli/assets/demo.onnx"
SECONDS = 900
SAMPLES = 16
# Both levels of optimisation compute the same up to values that lie between two steps.
LEVELS_DB = 20.0
LAYERS_INTEGER = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger")
# Networks beside the cases: arguments of qdrop, and the least dB to the float network.
TRIED = [
    ("-w 8 -a 8 --method rtn", 30.0),
    ("-w 4 -a 8 --method rtn", 12.0),
    ("-w 4 -a 4 --method rtn", 9.0),
    ("-w 2 -a 4 --iters 20", 4.0),
]


def version_key(name):
    return [int(part) if part.isdigit() else 0 for part in name.split(".")]


def pending(path):
    """Patterns of names with their reasons."""
    lines = [line.strip() for line in path.read_text().splitlines()] if path.exists() else []
    lines = [line for line in lines if line and not line.startswith("#")]
    return {name: reason.strip() for name, _, reason in (line.partition(" ") for line in lines)}


def names(row, version=None):
    """What a line of the list may call this row, in this version."""
    whole = row.partition("#")[0]
    return {whole, row} | ({f"{whole}@{version}", f"{row}@{version}"} if version else set())


def cases(root):
    """Name, network, samples, arguments and least dB of every run that writes a file."""
    for case in json.loads((root / "cases.json").read_text()):
        folder = root / case["name"]
        for number, run in enumerate(case["runs"], 1):
            if run["args"] != "compare":
                yield f"{case['name']}#{number}", folder / "model.onnx", folder / "data.npz", run["args"], run["db"]


def images(files, name, path):
    np.savez(path, **{name: np.stack([image(f, "imagenet-norm") for f in files])})
    return path


def networks(qdrop, shared, folder):
    """As `cases`, for the demo's network and ResNet-20."""
    drawn = folder / "drawn"
    draw = [qdrop, "demo", "--draw", "64", "--seed", "3", "--output-dir", drawn, "-q"]
    subprocess.run(draw, check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)
    found = [("demo", DEMO, images(sorted(drawn.glob("*/*.png")), "input", folder / "demo.npz"))]
    resnet = shared / "data/cifar10/resnet20.onnx"
    if resnet.exists():
        calibration = sorted((resnet.parent / "calib").glob("*.png"))[:64]
        found.append(("resnet20", resnet, images(calibration, "input", folder / "resnet20.npz")))
    for name, model, samples in found:
        for number, (args, least) in enumerate(TRIED, 1):
            yield f"{name}#{number}", model, samples, args, least


def quantize(qdrop, model, samples, args, written):
    """Why there is no file, or None."""
    command = [qdrop, "quantize", model, "--calib", samples, "-o", written, "-q", "--no-report", *args.split()]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"qdrop took more than {SECONDS} s"
    return f"qdrop: {' '.join(run.stderr.strip().splitlines()[:2]) or run.returncode}" if run.returncode else None


def judge(python, jobs, folder):
    """What one version says about every job."""
    path = folder / "jobs.json"
    results = []
    while len(results) < len(jobs):
        path.write_text(json.dumps(jobs[len(results) :]))
        try:
            run = subprocess.run([python, HERE / "versions.py", "--jobs", path], capture_output=True, text=True, timeout=SECONDS)
            said, ended = run.stdout, f"the runtime ended with status {run.returncode}"
        except subprocess.TimeoutExpired as late:
            said, ended = (late.stdout or b"").decode(), f"the runtime took more than {SECONDS} s"
        # The last line may be cut off.
        results += [json.loads(line) for line in said.splitlines() if line.endswith("}")]
        if len(results) < len(jobs):
            # The file took the interpreter down with it; the next one gets a new one.
            results.append({"error": ended, "integer": {}, "float": {}})
    return results


def plain(error):
    """A message without the runtime's codes and source files, so that versions say the same."""
    for pattern in (r"\[ONNXRuntimeError\] : \d+ : \w+ : ", r"/onnxruntime_src/\S+ ", r"Non-zero status code returned while "):
        error = re.sub(pattern, "", error)
    return error if len(error) <= 200 else f"{error[:120]} ... {error[-75:]}"


def layers(result):
    integer = sum(n for op, n in result.get("integer", {}).items() if op in LAYERS_INTEGER)
    return f"{integer}/{integer + sum(result.get('float', {}).values())}"


def cell(result, least):
    """Text of a cell, and why it falls short or None."""
    if result.get("error"):
        return "fails", result["error"]
    if result.get("float_error"):
        return "-", None
    got = result["levels_db"] if result.get("float_db") is None else result["float_db"]
    text = {999.0: "equal", -999.0: "nan"}.get(got, f"{got:.1f}")
    return text, None if got >= least else f"{text} dB, wanted {least}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qdrop", nargs="?")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--cases", type=pathlib.Path)
    parser.add_argument("--shared", type=pathlib.Path, default=os.environ.get("QDROP_SHARED") or REPOSITORY / "../shared")
    parser.add_argument("--runtimes", type=pathlib.Path, default=os.environ.get("QDROP_RUNTIMES") or REPOSITORY / "target/ort")
    parser.add_argument("--pending", type=pathlib.Path, default=HERE / "pending_cases.txt")
    parser.add_argument("--only", action="append", metavar="NAME", help="rows whose name fits, such as 'resnet20*'")
    parser.add_argument("--keep", type=pathlib.Path, help="folder that the written files stay in")
    parser.add_argument("--json", action="store_true", help="one line of JSON a row instead of a table")
    parser.add_argument("--settled", action="store_true")
    args = parser.parse_intermixed_args()
    expected = pending(args.pending)
    root = args.cases or args.shared / "cases"
    if args.settled:
        # Lines for other versions than that of this interpreter say nothing here.
        here = [p.partition("@")[0] for p in expected if "@" not in p or p.endswith(f"@{metadata.version('onnxruntime')}")]
        listed = {p.partition("#")[0] for p in here}
        print(*[c["name"] for c in json.loads((root / "cases.json").read_text()) if c["name"] not in listed])
        return 0
    if not args.qdrop:
        parser.error("QDROP is missing")
    installed = args.runtimes.glob("*/lib/python*/site-packages/onnxruntime-*.dist-info")
    versions = sorted({p.relative_to(args.runtimes).parts[0] for p in installed}, key=version_key)
    if not versions:
        sys.exit(f"error: no environment in {args.runtimes}; scripts/runtimes.sh makes them")

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        kept = args.keep or folder
        kept.mkdir(parents=True, exist_ok=True)
        runs = list(networks(args.qdrop, args.shared, folder)) + (list(cases(root)) if (root / "cases.json").exists() else [])
        rows, jobs = [], []
        for name, model, samples, command, least in runs:
            if args.only and not any(fnmatch.fnmatch(n, pattern) for pattern in args.only for n in names(name)):
                continue
            written = kept / f"{name.replace('#', '.')}.onnx"
            wrong = quantize(args.qdrop, model, samples, command, written)
            rows.append({"name": name, "args": command, "least": least, "wrong": wrong, "job": None if wrong else len(jobs)})
            if not wrong:
                jobs.append({"file": str(written), "inputs": str(samples), "float": str(model), "samples": SAMPLES})
            if sys.stderr.isatty():
                print(f"\r{name:40}", end="", file=sys.stderr, flush=True)
        for file in args.files:
            rows.append({"name": file.name, "args": "", "least": LEVELS_DB, "wrong": None, "job": len(jobs)})
            jobs.append({"file": str(file)})
        results = {v: judge(args.runtimes / v / "bin/python", jobs, folder) for v in versions}

    short, used = [], set()
    if not args.json:
        print(f"\r{'file':26}{'arguments':28}{'dB':>4} " + "".join(f"{v:>8}" for v in versions) + "  integer")
    for row in rows:
        texts = []
        row["versions"] = {}
        for version in versions:
            result = {} if row["wrong"] else results[version][row["job"]]
            text, wrong = ("none", row["wrong"]) if row["wrong"] else cell(result, row["least"])
            listed = names(row["name"], version) & expected.keys()
            if wrong:
                used |= listed
                if not listed:
                    short.append((row["name"], version, wrong))
            texts.append(text + ("" if not wrong else "~" if listed else "*"))
            row["versions"][version] = {**result, "short": wrong, "pending": bool(listed)}
        if args.json:
            print(json.dumps({k: row[k] for k in ("name", "args", "least", "versions")}), flush=True)
        else:
            count = "" if row["wrong"] else layers(results[versions[-1]][row["job"]])
            command = row["args"].replace(" --method rtn", " rtn").replace("-w ", "w").replace(" -a ", "a")
            print(f"{row['name'][:25]:26}{command[:27]:28}{row['least']:4.0f} {''.join(f'{t:>8}' for t in texts)}  {count}")
    told = {}
    for name, version, wrong in short:
        told.setdefault((name, plain(wrong)), []).append(version)
    for (name, wrong), where in told.items():
        print(f"* {name} in {', '.join(where) if len(where) < len(versions) else 'all'}: {wrong}", file=sys.stderr)
    tried = {n for row in rows for v in versions for n in names(row["name"], v)}
    for name in [name for name in expected if name not in used and (name in tried or not args.only)]:
        print(f"{name} is right now: take its line off {args.pending}", file=sys.stderr)
    print(f"{len({name for name, _, _ in short})} of {len(rows)} fall short", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
