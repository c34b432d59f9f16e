"""Which way of running a model is the fastest that fits, and which leaves the most context where it is fast enough?

`fit` prefers more layers on the devices, and repacked weights; with the rates of a machine both are predicted instead.
"""

from collections.abc import Callable, Iterator
from typing import Final

from ggufphys.frozen import replace
from ggufphys.plan.fit import Choice, Fit, Fitter, Trial
from ggufphys.plan.fit_space import ORDERS

Rate = Callable[[Trial], float]
"""Tokens a second that a trial is predicted to generate, or to read."""

MAX_LEVELS: Final = 8  # that are looked at between none and all layers on the devices
WORTH: Final = 1.05  # times as fast: less is no reason


def fastest(fitter: Fitter, fit: Fit, rate: Rate, reads: Rate) -> Fit:
    """The fit with as much on the devices, and weights repacked or not, as is predicted to be the fastest.

    Of those that generate about as fast (`WORTH`) it is one that reads prompts fastest, and of those that read them
    about as fast the one with most layers there, repacked. Which layout reads faster is the machine's: kernels for
    repacked weights are not the faster ones everywhere.
    """
    choices = [choice for choice in _around(fitter, fit.choice) if fitter.at(choice).fits]
    for speed in (rate, reads):
        most = max((speed(fitter.at(choice)) for choice in choices), default=0.0)
        choices = [choice for choice in choices if speed(fitter.at(choice)) * WORTH >= most]
    best = choices[-1] if choices else fit.choice
    return fit if best == fit.choice else fitter.answer(_filled(fitter, best), fit.prefer)


def reads_faster(fitter: Fitter, fit: Fit, reads: Rate) -> Trial | None:
    """The trial with weights in their other layout, if that fits and reads prompts faster than the fit does."""
    if not fitter.scales["repack"].top:
        return None
    other = fitter.at(replace(fit.choice, repack=1 - fit.choice.repack))
    return other if other.fits and reads(other) > WORTH * reads(fit.trial) else None


def _filled(fitter: Fitter, choice: Choice) -> Choice:
    """The choice with what it leaves free given to the context, and then to all that comes behind speed."""
    for goal in ORDERS["speed"]:
        if goal not in ("level", "repack"):
            choice = fitter.furthest(choice, goal)
    return choice


def fast_enough(fitter: Fitter, fit: Fit, rate: Rate, tok_per_s: float) -> Fit | None:
    """The fit with the longest context among those that generate so fast; None where the fastest one does not.

    `fit` is the fastest. Layers that go to the host make room for context and cost speed.
    """
    if not fit.fits or rate(fit.trial) < tok_per_s:
        return None
    best = fit
    for choice in _around(fitter, fit.choice):
        if choice.repack != fit.choice.repack:
            continue
        further = fitter.furthest(choice, "n_ctx")
        trial = fitter.at(further)
        if trial.fits and trial.params.n_ctx > best.trial.params.n_ctx and rate(trial) >= tok_per_s:
            best = fitter.answer(further, fit.prefer)
    return best


def _around(fitter: Fitter, choice: Choice) -> Iterator[Choice]:
    """The choice with fewer layers on the devices, and with each way of keeping weights."""
    top = choice.level or 0
    step = max(1, -(-top // MAX_LEVELS))
    for level in sorted({*range(0, top, step), top}):
        for repack in range(fitter.scales["repack"].top + 1):
            yield replace(choice, level=level, repack=repack)
