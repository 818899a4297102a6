"""``python -m qdrop`` is the command ``qdrop``."""

import sys

from ._cli import main

sys.exit(main())
