"""`python -m ggufphys`."""

import sys

from ggufphys.cli import main

sys.exit(main())
