"""`python -m ggufphys`."""

import sys

from ggufphys.cli import process

sys.exit(process())
