#!/usr/bin/env bash
# Makes the website of the book in target/book, with the page of every sweep in docs/ablations. Needs mdbook on the path.
set -euo pipefail
cd "$(dirname "$0")/.."

mdbook build docs
cargo run --quiet -p qdrop --example sweep_pages -- docs/ablations target/book/ablations
