#!/usr/bin/env bash
# Installs the wheel in target/wheels in an empty environment, and runs in an empty folder what README.md and docs/python.md
# show first in Python: the lines between the comments `readme`. Prints the size of the wheel and the times.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
wheel="$(ls -t "$root"/target/wheels/qdrop-*.whl | head -n 1)"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

start=$SECONDS
"${PYTHON:-python3}" -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
printf 'wheel: %s bytes, installed with its requirements in %s s: %s\n' "$(stat -c %s "$wheel")" "$((SECONDS - start))" \
  "$("$folder/environment/bin/python" -m pip freeze --disable-pip-version-check | cut -d ' ' -f 1 | tr '\n' ' ')"

mkdir "$folder/empty"
cd "$folder/empty"
for page in README.md docs/python.md; do
  sed -n '/^<!-- readme -->$/,/^<!-- \/readme -->$/p' "$root/$page" | sed '/^<!--/d; /^```/d' >"$folder/lines.py"
  [ -s "$folder/lines.py" ]
  start=$SECONDS
  "$folder/environment/bin/python" "$folder/lines.py" >"$folder/printed"
  [ -s demo.w4a8.onnx ] && [ -s "$folder/printed" ]
  printf '%s: ran in %s s and left %s\n' "$page" "$((SECONDS - start))" "$(ls)"
  rm demo.w4a8.onnx
done
"$folder/environment/bin/qdrop" --version
