#!/usr/bin/env bash
# Environments with older and newer ONNX Runtimes, in which written files are judged: target/ort/VERSION each.
#
# usage: runtimes.sh [VERSION...]
#
# Makes what is missing and prints a line for it; prints nothing when all are there. QDROP_RUNTIMES names another folder.
# Needs Python 3.11 or 3.12 (python3, else the one that PYTHON names) with venv, and a way to its packages.
set -euo pipefail
cd "$(dirname "$0")/.."

folder="${QDROP_RUNTIMES:-target/ort}"
if [ $# = 0 ]; then
  set -- 1.17.3 1.20.1 1.23.2 1.26.0 1.32.0
fi

for version in "$@"; do
  # 1.17 was built for NumPy 1.
  case "$version" in
    1.1?.*) numpy=1.26.4 ;;
    *) numpy=2.4.6 ;;
  esac
  here="$folder/$version"
  # Packages are installed behind what they need, so this folder is the last one to appear.
  if [ -x "$here/bin/python" ] && compgen -G "$here/lib/python*/site-packages/onnxruntime-$version.dist-info" >/dev/null; then
    continue
  fi
  echo "making $here" >&2
  mkdir -p "$folder"
  "${PYTHON:-python3}" -m venv --clear "$here"
  if ! "$here/bin/python" -m pip install --quiet --disable-pip-version-check "onnxruntime==$version" "numpy==$numpy"; then
    echo "error: ONNX Runtime $version could not be installed into $here" >&2
    exit 1
  fi
done
