"""Speed: tokens a second, predicted beside measured, of every recorded `ggufphys measure` that has both."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final

from bench.report.drawing import MARKERS, drawing
from bench.report.memory import run_name
from bench.report.section import Picture, Section, Table, commands, of_kind
from bench.results.records import Record

MISSING: Final = "ggufphys bench calibrate; python -m bench.results.run measure MODEL.gguf -c 4096 --as library"
PHASES: Final = {"prefill_tok_per_s": "prefill", "decode_tok_per_s": "decode"}
BAND: Final = {"prefill": 15.0, "decode": 10.0}  # percent, that predictions are to keep
Pair = tuple[Record, str, float, float]  # run, phase, predicted and measured tokens a second


def speed(records: Sequence[Record]) -> Section:
    """Tokens a second with their residuals."""
    pairs = list(speed_pairs(records))
    if not pairs:
        return Section(key="speed", title="Speed: predicted and measured", missing=MISSING)
    runs = list({id(pair[0]): pair[0] for pair in pairs}.values())
    off = {phase: [abs(_off(p)) for p in pairs if p[1] == phase] for phase in BAND}
    said = [
        f"{phase} by {median(found):.1f} % in the median, {max(found):.1f} % at most"
        for phase, found in off.items()
        if found
    ]
    return Section(
        key="speed",
        title="Speed: predicted and measured",
        missing=MISSING,
        text=(f"Predictions were off: {'; '.join(said)}.",),
        tables=(speed_table(pairs),),
        pictures=(_picture(pairs, runs),),
        commands=commands(runs),
    )


def speed_pairs(records: Sequence[Record]) -> Iterator[Pair]:
    """Each figure that was both predicted and measured."""
    for run in of_kind(records, "measure"):
        for row in run.result["rows"]:
            phase = PHASES.get(row["quantity"])
            predicted, measured = value(row["predicted"]), value(row["measured"])
            if phase and predicted and measured:
                yield run, phase, predicted, measured


def speed_table(pairs: Sequence[Pair]) -> Table:
    """A row a figure."""
    rows = [
        (
            run_name(run),
            phase,
            f"{predicted:,.1f}",
            f"{measured:,.1f}",
            f"{_off((run, phase, predicted, measured)):+.1f} %".replace("-", "−"),
        )
        for run, phase, predicted, measured in pairs
    ]
    header = ("model and flags", "phase", "tokens/s: predicted", "measured", "error")
    return Table(header=header, rows=rows, right=(2, 3, 4))


def value(figure: float | Mapping[str, Any] | None) -> float | None:
    """A figure's middle: it is a number, or has bounds beside it."""
    return figure.get("value") if isinstance(figure, Mapping) else figure


def _off(pair: Pair) -> float:
    _, _, predicted, measured = pair
    return 100 * (predicted - measured) / measured


def _picture(pairs: Sequence[Pair], runs: Sequence[Record]) -> Picture:
    with drawing("speed", 9.5, 1.2 + 0.4 * len(runs)) as d:
        axes = d.figure.subplots()
        for k, phase in enumerate(BAND):
            found = [pair for pair in pairs if pair[1] == phase]
            axes.plot(
                [_off(pair) for pair in found], [runs.index(pair[0]) + 0.16 * (2 * k - 1) for pair in found],
                MARKERS[k], color=("0.1", "#0072b2")[k], label=f"{phase} (bar: ±{BAND[phase]:.0f} %)",
            )  # fmt: skip
        axes.axvline(0, color="0.2", linewidth=1)
        axes.axvspan(-BAND["decode"], BAND["decode"], color="0.92", zorder=0)
        axes.set_yticks(range(len(runs)), [run_name(run) for run in runs])
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_xlabel("tokens a second: predicted − measured, % of the measured")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, frameon=False)
    return Picture(svg=d.svg, caption="How far predicted tokens a second were off; grey is ±10 %.")
