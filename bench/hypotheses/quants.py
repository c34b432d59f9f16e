"""What does a quant cost in quality? Measured on the embedded model, or on the one that is given."""

from functools import cache
from math import exp
from pathlib import Path
from typing import Final

from bench.derive import derived
from bench.hypotheses.files import Setup
from bench.hypotheses.finding import Finding
from bench.quality.command import judged_rows
from bench.quality.rows import Candidate, Row
from bench.quality.texts import Setting, text_of
from ggufphys.embedded import MODEL

SMALL_BYTES: Final = 64 << 20
WINDOWS: Final = (40, 8)  # of a text, judged by a small model and by a larger one: a minute on two cores


@cache
def _judged(name: str, base: Path, other: Path, type_k: str, type_v: str) -> tuple[Row, Row]:
    candidates = [
        Candidate(name=name, path=base),
        Candidate(name="other", path=other, type_k=type_k, type_v=type_v),
    ]
    n_windows = WINDOWS[base.stat().st_size > SMALL_BYTES]
    first, second = judged_rows(candidates, Setting(text=text_of(()), n_chunks=n_windows))
    return first, second


def _pair(setup: Setup, model: Path | None) -> tuple[Row, Row]:
    source = model or MODEL
    base = derived(setup["base"], source) if "base" in setup else source
    other = derived(setup["type"], source) if "type" in setup else base
    name = f"{source.name} as {setup['base']}" if "base" in setup else source.name
    return _judged(name, base, other, setup.get("type_k", "f16"), setup.get("type_v", "f16"))


def _said(base: Row, other: Row) -> str:
    return (
        f"Perplexity {other['perplexity']:.3f} for {base['perplexity']:.3f}, KL divergence {other['kl_mean']:.5f} "
        f"nats, the same likeliest token in {other['top1']:.1%}, over {other['n_tokens']:,} tokens, "
        f"beside {base['model']}."
    )


def perplexity_loss(setup: Setup, model: Path | None) -> Finding:
    """By how much more perplexed than its base."""
    base, other = _pair(setup, model)
    ends = [base["perplexity"] * (exp(x) - 1) for x in other["ln_ratio_ci95"]]
    return Finding(
        value=other["perplexity"] - base["perplexity"],
        interval=(ends[0], ends[1]),
        explanation=_said(base, other),
    )


def quality_kept(setup: Setup, model: Path | None) -> Finding:
    """The base's perplexity over the other's."""
    base, other = _pair(setup, model)
    low, high = other["ln_ratio_ci95"]
    return Finding(
        value=base["perplexity"] / other["perplexity"],
        interval=(exp(-high), exp(-low)),
        explanation=f"Quality as the base's perplexity over the quant's. {_said(base, other)}",
    )


def same_top(setup: Setup, model: Path | None) -> Finding:
    """How often the likeliest token is the base's."""
    base, other = _pair(setup, model)
    return Finding(value=other["top1"], interval=tuple(other["top1_ci95"]), explanation=_said(base, other))
