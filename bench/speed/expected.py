"""What do a file's graphs say of a measurement: how fast it should be, and what a token costs?"""

from ggufphys.gguf import GGUFFile
from ggufphys.graph.devices.runs import Run, Runs
from ggufphys.params import Params
from ggufphys.speed.costs import StepCosts
from ggufphys.speed.predict import PhaseSpeed, Speeds
from ggufphys.speed.rates import Machine


class Expected:
    """Predictions for one file, run with `params`; where several sequences decode, with `batch_params`.

    A measurement is of a `kind`: `prefill` of n tokens, `decode` of one sequence behind `depth` tokens, or `batch`, a
    step of n sequences at that depth.
    """

    def __init__(self, gguf: GGUFFile, machine: Machine, params: Params, batch_params: Params) -> None:
        self._runs = Runs(gguf)
        self._machine = machine
        self._params, self._batch_params = params, batch_params

    def _run(self, kind: str) -> Run:
        return self._runs.run(self._batch_params if kind == "batch" else self._params)

    def speed(self, kind: str, n: int, depth: int, *, pace: float = 1.0) -> PhaseSpeed:
        """Tokens a second, where arithmetic takes `pace` times as long as when the machine was calibrated."""
        n_threads = self._params.n_threads
        speeds = Speeds(self._run(kind), self._machine.at_pace(pace, n_threads), n_threads)
        return speeds.prefill(n) if kind == "prefill" else speeds.decode(n if kind == "batch" else 1, depth)

    def costs(self, kind: str, n: int, depth: int) -> tuple[float, float]:
        """FLOPs of a token, and bytes of weights and cache that are read for it."""
        run = self._run(kind)
        steps = StepCosts(run.layouts, run.context)
        phase = steps.prefill(n) if kind == "prefill" else steps.decode(n if kind == "batch" else 1, depth)
        total = phase.total
        return total.flops / phase.n_tokens, (total.weight_bytes + total.cache_bytes) / phase.n_tokens
