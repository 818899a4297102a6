"""The command ``qdrop``."""

from __future__ import annotations

import sys

from . import _qdrop


def main() -> int:
    """Runs the command line, and returns the exit status."""
    return _qdrop.run(sys.argv)
