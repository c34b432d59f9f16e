"""The answer of `fit`: a command line, what is left where, where one step more fails; or what would help."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ggufphys.frozen import asdict
from ggufphys.graph.devices.placed import Placement
from ggufphys.params import HOST, Params
from ggufphys.plan.fit import Fit, Place, Trial
from ggufphys.plan.fit_flags import changed, run_flags
from ggufphys.plan.fit_help import Help
from ggufphys.plan.fit_space import Goal
from ggufphys.plan.prices import NO_REPACK, Change, prices
from ggufphys.report.inspection import Section, table
from ggufphys.units import format_bytes, format_mib

if TYPE_CHECKING:
    from ggufphys.speed.predict import SpeedPrediction


Pace = Callable[[Trial], "SpeedPrediction"]
"""How fast a way of running the model is predicted to be."""


def fit_section(
    fit: Fit,
    placement: Placement,
    *,
    command: Sequence[str],
    flags: Sequence[str],
    helps: Sequence[Help] = (),
    pace: Pace | None,
) -> Section:
    """`command` runs llama-server with the chosen `flags` and all others; `helps` are there if nothing fits.

    `pace` is there if speed has chosen: a step more then may fit, and be slower.
    """
    answer = _fitting(fit, command, flags, pace) if fit.fits else _failing(fit, flags, helps)
    return Section(
        key="fit",
        lines=(*_place_lines(fit, placement), "", *answer),
        value=_value(fit, command, flags, helps),
    )


def would_fit_section(change: Change | None) -> Section:
    """The cheapest change that would make it fit, if one of those that are tried does."""
    if change is None:
        lines: tuple[str, ...] = (
            "no cheaper way to run it would make it fit: `ggufphys fit` says what else would help",
        )
    else:
        lines = (f"it would fit with {shlex.join(change.flags)}", *(f"  {price}" for price in change.prices))
    return Section(key="would_fit", lines=lines, value=None if change is None else asdict(change))


def _place_lines(fit: Fit, placement: Placement) -> list[str]:
    header = ("on", "layers", "needs MiB", "of", "left", "to be left")
    rows = [
        (
            "main memory (process)" if place.name == HOST else place.name,
            _layers(placement, place.name),
            format_mib(place.needed_bytes),
            format_mib(place.memory_bytes),
            format_mib(place.left_bytes),
            format_mib(place.margin_bytes),
        )
        for place in fit.trial.places
    ]
    return table(header, rows, right=(2, 3, 4, 5))


def _layers(placement: Placement, name: str) -> str:
    """The layers of a device, which follow on each other."""
    mine = [il for il, home in enumerate(placement.layers) if home == name]
    parts = [f"{mine[0]}-{mine[-1]}" if len(mine) > 1 else f"{mine[0]}"] if mine else []
    if placement.output == name:
        parts.append("output")
    return ", ".join(parts) or "none"


def _fitting(fit: Fit, command: Sequence[str], flags: Sequence[str], pace: Pace | None) -> Iterator[str]:
    yield f"it fits; preferred: {fit.prefer}"
    yield ""
    yield shlex.join(command)
    paid = _prices(fit)
    if paid:
        yield ""
        yield from (f"the price of {flags}: {price}" for flags, price in paid)
    if fit.next_steps:
        yield ""
        for goal, trial in fit.next_steps.items():
            step = shlex.join(_step(flags, goal, trial.params))
            answer = _slower(pace(trial)) if pace and trial.fits else _too_much(trial.tightest)
            yield f"one step more, {_GOALS[goal]}: {step}: {answer}"
    else:
        yield "nothing to improve: each setting is at its best"


def _failing(fit: Fit, flags: Sequence[str], helps: Sequence[Help]) -> Iterator[str]:
    yield "does not fit: even with " + shlex.join(flags)
    places = [place for place in fit.trial.places if place.over_bytes > 0]
    yield "  " + ", ".join(map(_too_much, places))
    for i, help_ in enumerate(helps):
        yield f"{'it would fit' if i == 0 else 'or'} {help_text(help_)}"


_GOALS = {
    "level": "more on the devices", "repack": "repacked weights", "mmap": "the file mapped",
    "types": "more bits for K and V", "n_ubatch": "batch", "n_ctx": "context",
}  # fmt: skip
_AS_BY_DEFAULT: Final[dict[Goal, str]] = {"repack": "--repack", "mmap": "-lm mmap"}  # flags that go, not come


def _prices(fit: Fit) -> tuple[tuple[str, str], ...]:
    """What the choice costs; weights that are not repacked though they would fit are so to be faster."""
    chosen_freely = any(goal == "repack" and trial.fits for goal, trial in fit.next_steps.items())
    return tuple(paid for paid in prices(fit.trial.params) if not (chosen_freely and paid[0] == NO_REPACK.flags[0]))


def _slower(speed: "SpeedPrediction") -> str:
    from ggufphys.report.speed import format_rate  # where speed is known

    reads = f"read prompts at {format_rate(speed.prefill.tok_per_s.value)}"
    if speed.decode is None:
        return f"would fit and {reads} tokens/s"
    return f"would fit, generate {format_rate(speed.decode.tok_per_s.value)} tokens/s and {reads}"


def _too_much(place: Place) -> str:
    why = f", for the margin of {format_mib(place.margin_bytes)} alone" if place.margin_alone else ""
    return f"{format_mib(place.over_bytes)} MiB too much on {_place_name(place.name)}{why}"


def _place_name(name: str) -> str:
    return "the host" if name == HOST else name


def help_text(help_: Help) -> str:
    """What would help, behind "it would fit"."""
    if help_.kind == "context":
        return f"with a context of {help_.n_ctx:,}"
    if help_.kind == "file_type":
        return f"as {help_.file_type}, a file of {format_bytes(help_.file_bytes or 0)}"
    places = (help_.more_bytes or {}).items()
    return "with " + " and ".join(f"{nbytes >> 20:,} MiB more on {_place_name(name)}" for name, nbytes in places)


def _step(flags: Sequence[str], goal: Goal, params: Params) -> list[str]:
    return _AS_BY_DEFAULT[goal].split() if goal in _AS_BY_DEFAULT else _changes(flags, params)


def _changes(flags: Sequence[str], params: Params) -> list[str]:
    return changed(list(flags), run_flags(params, name_devices="-dev" in flags))


def _value(fit: Fit, command: Sequence[str], flags: Sequence[str], helps: Sequence[Help]) -> dict[str, Any]:
    return {
        "fits": fit.fits,
        "prefer": fit.prefer,
        "command": list(command) if fit.fits else None,
        "flags": list(flags),
        "prices": [{"flags": flags, "price": price} for flags, price in _prices(fit)],
        "n_layers": fit.n_layers,
        "places": [_place_value(place) for place in fit.trial.places],
        "next_steps": [
            {
                "goal": goal,
                "flags": _step(flags, goal, trial.params),
                "fits": trial.fits,
                **_place_value(trial.tightest),
            }
            for goal, trial in fit.next_steps.items()
        ],
        "helps": [{k: v for k, v in asdict(help_).items() if v is not None} for help_ in helps],
    }


def _place_value(place: Place) -> dict[str, Any]:
    return {
        **asdict(place),
        "left_bytes": place.left_bytes,
        "over_bytes": place.over_bytes,
        "margin_alone": place.margin_alone,
    }
