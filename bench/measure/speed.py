"""Tokens a second, predicted and measured: rows beside those of memory."""

from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from bench.calibrate.clock import COUNTS
from bench.measure.supervise import ChildResult
from ggufphys.errors import GGUFPhysError
from ggufphys.gguf import GGUFFile
from ggufphys.graph.devices.runs import Runs
from ggufphys.params import Params
from ggufphys.speed import history, kept
from ggufphys.speed.predict import Figure, Speeds

WARM_UP: Final = 2  # steps that do not count, where there are more


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRow:
    """One quantity in tokens a second; `predicted` is None where the machine was not calibrated.

    `measured_low` and `measured_high` are the quartiles of `n` steps, `busy` the share of its time that a thread had no
    processor meanwhile.
    """

    quantity: str
    predicted: float | None
    predicted_low: float | None
    predicted_high: float | None
    measured: float
    measured_low: float
    measured_high: float
    n: int
    busy: float
    source: str

    @property
    def difference(self) -> float | None:
        """Predicted less measured."""
        return None if self.predicted is None else self.predicted - self.measured


Figures = tuple[Figure | None, Figure | None]
"""Of reading and of generating, in tokens a second."""


def predicted(gguf: GGUFFile, params: Params, result: ChildResult) -> tuple[Figures, str]:
    """What this machine's calibration says of the run; nothing where it cannot, and why."""
    nothing: Figures = None, None
    prefill, decode = result.phase("prefill"), result.phase("decode")
    if prefill is None or decode is None:
        return nothing, ""
    n_prompt, n_predict = prefill.facts["n_tokens"], decode.facts["n_tokens"]
    try:
        machine = kept.kept_machine()
        if machine is None:
            return nothing, "`ggufphys bench calibrate` measures what it needs, in a minute"
        speeds = Speeds(Runs(gguf).run(params), machine, params.n_threads)
        generating = speeds.decode(1, n_prompt + n_predict // 2).tok_per_s if n_predict and speeds.has_cache else None
        return (speeds.prefill(n_prompt).tok_per_s, generating), ""
    except (GGUFPhysError, ValueError) as error:
        return nothing, str(error)


def speed_rows(result: ChildResult, figures: Figures = (None, None)) -> tuple[SpeedRow, ...]:
    """Reading a prompt and generating, of a run that came to its end; nothing of another one."""
    prefill, decode = result.phase("prefill"), result.phase("decode")
    if prefill is None or decode is None:
        return ()
    n_prompt, n_predict = prefill.facts["n_tokens"], decode.facts["n_tokens"]
    seconds = prefill.facts["seconds"]
    rows = [_row("prefill_tok_per_s", figures[0], [n_prompt / seconds], prefill.facts, "one prompt")]
    if n_predict:
        steps = decode.facts.get("steps") or [decode.facts["seconds"] / n_predict]
        counted = steps[WARM_UP:] if len(steps) > 2 * WARM_UP else steps
        rows.append(_row("decode_tok_per_s", figures[1], [1 / s for s in counted], decode.facts, "median of steps"))
    return tuple(rows)


def keep_errors(gguf: GGUFFile, params: Params, rows: tuple[SpeedRow, ...]) -> None:
    """Remember how right predictions were; runs on a busy machine say nothing about them."""
    model = f"{gguf.path.name}:{gguf.file_bytes}"
    found = [(r.quantity, r.predicted, r.measured) for r in rows if r.predicted is not None and r.busy <= COUNTS]
    history.add(found, model=model, build=params.llama_build)


def _row(quantity: str, figure: Figure | None, rates: list[float], facts: dict[str, Any], source: str) -> SpeedRow:
    rates = sorted(rates)
    quarter = len(rates) // 4
    return SpeedRow(
        quantity=quantity,
        predicted=figure.value if figure else None,
        predicted_low=figure.low if figure else None,
        predicted_high=figure.high if figure else None,
        measured=median(rates),
        measured_low=rates[quarter],
        measured_high=rates[-1 - quarter],
        n=len(rates),
        busy=float(facts.get("busy", 0.0)),
        source=source,
    )
