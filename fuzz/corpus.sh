#!/usr/bin/env bash
# Writes the seeds of all targets to fuzz/corpus, where cargo-fuzz looks for them, and has it take the dependencies of
# the workspace's lock file.
#
# QDROP_NODE_TESTS adds the models of ONNX's operator tests, as scripts/dump_node_tests.py writes them.
set -euo pipefail
cd "$(dirname "$0")/.."
cp Cargo.lock fuzz/Cargo.lock
cargo run --quiet -p qdrop-fuzz -- corpus fuzz/corpus
