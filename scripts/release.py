#!/usr/bin/env python3
"""Makes the archive of a release for one platform: the program with completions, man pages, licences and changes, and a file
with the archive's SHA-256.

    scripts/release.py [TARGET] [-o dist]

TARGET is a platform as `rustc --print target-list` names it [default: that of this machine]; its standard library must
be installed. The same source, compiler and version of zlib give the same archive, byte for byte, wherever the program is
built the same. Needs Python 3.10 and nothing else.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["LICENSE-APACHE", "LICENSE-MIT", "CHANGELOG.md", "CITATION.cff"]
SHELLS = {"bash": "qdrop.bash", "zsh": "_qdrop", "fish": "qdrop.fish", "powershell": "_qdrop.ps1"}


def told(*line: str | Path) -> str:
    return subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def version() -> str:
    packages = json.loads(told("cargo", "metadata", "--no-deps", "--locked", "--format-version", "1"))["packages"]
    return next(p["version"] for p in packages if p["name"] == "qdrop-cli")


def host() -> str:
    return next(line.split()[1] for line in told("rustc", "-vV").splitlines() if line.startswith("host:"))


def written_at() -> int:
    """When the source was committed, in seconds since 1970; SOURCE_DATE_EPOCH overrides it."""
    named = os.environ.get("SOURCE_DATE_EPOCH")
    return int(named) if named else int(told("git", "log", "-1", "--format=%ct"))


def build(target: str) -> Path:
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "qdrop-cli", "--target", target], cwd=ROOT, check=True)
    folder = json.loads(told("cargo", "metadata", "--no-deps", "--locked", "--format-version", "1"))["target_directory"]
    return Path(folder) / target / "release" / ("qdrop.exe" if "windows" in target else "qdrop")


def contents(program: Path, runs_here: bool) -> dict[str, tuple[bytes, int]]:
    """Content and mode of each file of the archive by its name."""
    files = {program.name: (program.read_bytes(), 0o755)}
    files |= {name: ((ROOT / name).read_bytes(), 0o644) for name in TEXTS}
    files["README.md"] = ((ROOT / "README.md").read_bytes(), 0o644)
    # What the program prints about itself can be had only where it runs.
    if runs_here:
        for shell, name in SHELLS.items():
            files[f"completions/{name}"] = (told(program, "completions", shell).encode(), 0o644)
        with tempfile.TemporaryDirectory() as folder:
            told(program, "man", folder)
            files |= {f"man/{p.name}": (p.read_bytes(), 0o644) for p in Path(folder).iterdir()}
    return dict(sorted(files.items()))


def tar(files: dict[str, tuple[bytes, int]], folder: str, moment: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=moment) as zipped, tarfile.open(fileobj=zipped, mode="w") as out:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode, entry.mtime = len(content), mode, moment
            out.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def pack_zip(files: dict[str, tuple[bytes, int]], folder: str, moment: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name, (content, mode) in files.items():
            entry = zipfile.ZipInfo(f"{folder}/{name}", time.gmtime(moment)[:6])
            entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            out.writestr(entry, content)
    return packed.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the archive of a release for one platform.")
    parser.add_argument("target", nargs="?", help="the platform [default: this machine's]")
    parser.add_argument("-o", "--output-dir", type=Path, default=ROOT / "dist", help="where it goes [default: dist]")
    parser.add_argument("--program", type=Path, help="pack this program instead of building one")
    args = parser.parse_args()
    target = args.target or host()
    program = args.program or build(target)
    try:
        runs_here = told(program, "--version").split()[-1] == version()
    except OSError:
        runs_here = False
    folder = f"qdrop-{version()}-{target}"
    windows = "windows" in target
    packed = (pack_zip if windows else tar)(contents(program, runs_here), folder, written_at())
    args.output_dir.mkdir(parents=True, exist_ok=True)
    archive = args.output_dir / f"{folder}.{'zip' if windows else 'tar.gz'}"
    archive.write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    # As sha256sum writes and checks it.
    archive.with_name(archive.name + ".sha256").write_text(f"{digest}  {archive.name}\n", encoding="utf-8", newline="\n")
    print(f"{archive}: {len(packed) / 1e6:.1f} MB, SHA-256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
