"""Prediction against measurement, on the running machine."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m bench.NAME` looks for NAME: what that imports takes a while
    from ggufphys.interrupts import end_quietly

    end_quietly()
