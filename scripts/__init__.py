"""Development scripts: run from the repository's root with `python -m scripts.…`; not part of the wheel."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m scripts.NAME` looks for NAME: what that imports takes a while
    from ggufphys.interrupts import end_quietly

    end_quietly()
