"""What do judged tokens come to? Means with standard errors as llama-perplexity has them, and intervals.

A standard error takes tokens as independent, which neighbours are not. The intervals draw whole windows, again and
again: what is inside a window stays together. Of few windows such draws are too much alike; so the percentiles that are
taken lie further out, as Student's t does (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015: expanded
percentiles).
"""

from collections.abc import Callable, Mapping
from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

from bench.quality.base import F64
from bench.quality.judging import Judged

N_DRAWN: Final = 2000
AT_ONCE: Final = 1 << 20  # numbers that are drawn at a time
STUDENT: Final = (  # divisors, and powers with their factors, of 1/n, 1/n², 1/n³
    (4, ((3, 1), (1, 1))),
    (96, ((5, 5), (3, 16), (1, 3))),
    (384, ((7, 3), (5, 19), (3, 17), (1, -15))),
)
Interval = tuple[float, float]


def drawn_interval(rows: F64, figure: Callable[[F64], F64]) -> Interval | None:
    """The 95 % interval of a figure of means, by drawing rows with replacement; None for less than two rows.

    Each call draws the same rows. `rows` are `(n, k)`, `figure` makes `(N_DRAWN,)` of their means `(N_DRAWN, k)`.
    """
    n = len(rows)
    if n < 2:
        return None
    generator = np.random.default_rng(0)
    at_once = min(N_DRAWN, max(1, AT_ONCE // rows.size))
    means = np.concatenate(
        [
            rows[generator.integers(0, n, (min(at_once, N_DRAWN - i), n))].mean(axis=1)
            for i in range(0, N_DRAWN, at_once)
        ]
    )
    tail = 100 * _tail(n)
    low, high = np.percentile(figure(means), (tail, 100 - tail))
    return float(low), float(high)


def _tail(n: int) -> float:
    """Which share of what is drawn of `n` rows lies below a 95 % interval: 2.5 % of many, less of few.

    Source: Abramowitz and Stegun, 26.7.5 (quantiles of t by those of the normal distribution).
    """
    z, freedom = NormalDist().inv_cdf(0.975), n - 1
    t = z + sum(
        sum(factor * z**power for power, factor in terms) / (scale * freedom**i)
        for i, (scale, terms) in enumerate(STUDENT, 1)
    )
    return NormalDist().cdf(-t * sqrt(n / freedom))


def _se(values: F64) -> float:
    return float(values.std() / np.sqrt(max(len(values) - 1, 1)))


def _windowed(values: F64, n_windows: int) -> F64:
    means: F64 = values.reshape(n_windows, -1).mean(axis=1, keepdims=True)
    return means


def perplexity_figures(judged: Judged, n_windows: int) -> dict[str, object]:
    """`perplexity`, `perplexity_se`, `perplexity_ci95`."""
    perplexity = float(np.exp(judged.nll.mean()))
    return {
        "perplexity": perplexity,
        "perplexity_se": perplexity * _se(judged.nll),
        "perplexity_ci95": drawn_interval(_windowed(judged.nll, n_windows), lambda means: np.exp(means[:, 0])),
    }


def divergence_figures(judged: Judged, n_windows: int) -> dict[str, object]:
    """KL divergence (nats), how often the likeliest token is the same, error of the text's token's probability.

    `ln_ratio` is ln(perplexity / the base's), paired token by token.
    """
    ratio, dp2, same = judged.nll - judged.nll_base, judged.dp**2, judged.same_top.astype(np.float64)
    rms = float(np.sqrt(dp2.mean()))
    plain: Mapping[str, F64] = {"ln_ratio": ratio, "kl_mean": judged.kl, "top1": same}
    figures: dict[str, object] = {
        "kl_median": float(np.median(judged.kl)),
        "kl_p99": float(np.percentile(judged.kl, 99)),
        "kl_p999": float(np.percentile(judged.kl, 99.9)),
        "kl_max": float(judged.kl.max()),
        "rms_dp": rms,
        "rms_dp_se": _se(dp2) / (2 * rms) if rms else 0.0,
        "rms_dp_ci95": drawn_interval(_windowed(dp2, n_windows), lambda means: np.sqrt(means[:, 0])),
    }
    for name, values in plain.items():
        figures[name] = float(values.mean())
        figures[f"{name}_se"] = _se(values)
        figures[f"{name}_ci95"] = drawn_interval(_windowed(values, n_windows), lambda means: means[:, 0])
    return figures


def unigram_perplexity(targets: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]") -> float:
    """Exp of the entropy, in nats, of the tokens' own frequencies: what no model without context can undercut.

    Raises:
        ValueError: there are no tokens.
    """
    if not targets.size:
        raise ValueError("no tokens to judge: expected texts that are not empty")
    _, counts = np.unique(targets, return_counts=True)
    frequencies = counts / targets.size
    return float(np.exp(-(frequencies * np.log(frequencies)).sum()))
