"""How fast is the machine just now? A product that a core's own cache holds, timed beside what is measured.

A virtual machine's processors are shared with others by the core: arithmetic takes half as long again while a neighbour
computes on the same core, for a tenth of a second or for minutes, and nothing in here tells. A laptop gets hot. So a
measurement says what the gauge took around it, and figures of different moments are compared at one pace.
"""

import time
from statistics import mean, median
from typing import Final

from bench.calibrate.clock import INTERRUPTED
from bench.calibrate.graphs import ProductGraphs
from bench.calibrate.jobs import LONG, Product
from ggufphys.gguf import GGMLType

N_OUT, N_COLUMNS = 64, 16
WARM_UP: Final = 3  # runs: behind many wide instructions a core is slower for most of a millisecond


class Gauge:
    """One number of threads' gauge. Close it."""

    def __init__(self, n_threads: int) -> None:
        job = Product(
            n_threads=n_threads, ggml_type=GGMLType.Q8_0, repacked=False, n_in=LONG, n_out=N_OUT, n_columns=N_COLUMNS,
            place="cache",
        )  # fmt: skip
        self._clock = time.thread_time if n_threads == 1 else time.perf_counter
        self._graphs = ProductGraphs(job.ggml_type, repacked=False, nbytes=1)
        self._open = self._graphs.graph(job)
        self._run, _ = self._open.__enter__()
        self._looks: list[float] = []

    def look(self) -> float:
        """Seconds of a run now; those before it wake the threads, and let the core forget what it did before."""
        for _ in range(WARM_UP):
            self._run()
        started = self._clock()
        self._run()
        self._looks.append(self._clock() - started)
        return self._looks[-1]

    def mean(self) -> float:
        """Seconds on average of all looks since the last call, without those while a thread had no processor."""
        if not self._looks:
            self.look()
        looks, self._looks = self._looks, []
        most = INTERRUPTED * median(looks)
        return mean(seconds for seconds in looks if seconds <= most)

    def close(self) -> None:
        """Free what it uses."""
        self._open.__exit__(None, None, None)
        self._graphs.close()
