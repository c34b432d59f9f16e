"""What can be asked of a claim? A table: how each quantity is found, and what its setup may say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.hypotheses import quants, rates, sizes, speeds, ways
from bench.hypotheses.files import Setup
from bench.hypotheses.finding import Finding


def _not_here(setup: Setup, model: Path | None) -> Finding:
    return Finding(value=None, explanation=setup["why"])


@dataclass(frozen=True, slots=True)
class Quantity:
    """How one is found: its function, unit, whether something is run for it, its setup's keys, and needed ones.

    With `parts` the setup is a table for each of these, and each has such keys. `check` refuses what does not go
    together in one.
    """

    find: Callable[[Setup, Path | None], Finding]
    unit: str
    measured: bool
    setup: Mapping[str, type] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    check: Callable[[Setup], None] = lambda _: None


_FILE: Final = {"shape": str, "type": str}
_RUN: Final = {**_FILE, "ctx": int, "n_seq": int, "type_k": str, "type_v": str, "repack": bool}
_QUALITY: Final = {"base": str, "type": str, "type_k": str, "type_v": str}
_LOAD: Final = {"users": int, "n_prompt": int, "n_predict": int}
_TIMED: Final = {"type": str, "flags": str, "phase": str, "n_prompt": int, "n_seq": int}
_WAY: Final = {"file": str, **_TIMED, "users": int, "n_predict": int}
_SHEET: Final = {"shape": str, **_TIMED, "on": str}
_NEEDED: Final = ("shape", "type")
_BOTH: Final = ("of", "by")
# fmt: off
QUANTITIES: Final[Mapping[str, Quantity]] = {
    "total_gb":        Quantity(sizes.total_gb, "GB of llama.cpp's buffers", False, _RUN, _NEEDED),
    "process_gb":      Quantity(sizes.process_gb, "GB resident", False, _RUN, _NEEDED),
    "over_file":       Quantity(sizes.over_file, "times the file", False, _RUN, _NEEDED),
    "over_file_gb":    Quantity(sizes.over_file_gb, "GB more than the file", False, _RUN, _NEEDED),
    "cache_gb":        Quantity(sizes.cache_gb, "GB of K and V", False, _RUN, _NEEDED),
    "cache_ratio":     Quantity(sizes.cache_ratio, "times f16's", False, _RUN, _NEEDED),
    "file_gb":         Quantity(sizes.file_gb, "GB", False, _FILE, _NEEDED),
    "file_ratio":      Quantity(sizes.file_ratio, "times F16's", False, _FILE, _NEEDED),
    "perplexity_loss": Quantity(quants.perplexity_loss, "more perplexity", True, _QUALITY),
    "quality_kept":    Quantity(quants.quality_kept, "of the base's", True, _QUALITY),
    "same_top":        Quantity(quants.same_top, "of tokens", True, _QUALITY),
    "concurrent_cost": Quantity(speeds.concurrent_cost, "of each request's speed", True, {"n_seq": int}),
    "prompt_share":    Quantity(speeds.prompt_share, "of the time to the first token", True, {"n_prompt": int}),
    "thread_ratio":    Quantity(speeds.thread_ratio, "times as fast", True, {"times": int}),
    "p95_s":           Quantity(speeds.p95_s, "s", True, _LOAD),
    "predicted_p95_s": Quantity(speeds.predicted_p95_s, "s", False, {**_FILE, **_LOAD}, _NEEDED),
    "tok_per_s":       Quantity(rates.tok_per_s, "tokens/s", True, _WAY, check=ways.check),
    "tok_ratio":       Quantity(rates.tok_ratio, "times as fast", True, _WAY, parts=_BOTH, check=ways.check),
    "predicted_tok_per_s": Quantity(
        rates.predicted_tok_per_s, "tokens/s", False, _SHEET, _NEEDED, check=ways.check
    ),
    "predicted_tok_ratio": Quantity(
        rates.predicted_tok_ratio, "times as fast", False, _SHEET, _NEEDED, _BOTH, ways.check
    ),
    "gpu_ratio":       Quantity(speeds.gpu_ratio, "times as fast as on the CPU", True),
    "amx_ratio":       Quantity(speeds.amx_ratio, "times as fast as without", True),
    "not_here":        Quantity(_not_here, "", False, {"why": str}, ("why",)),
}
# fmt: on
