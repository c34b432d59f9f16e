"""Speed: tokens a second, predicted beside measured, of every recorded `measure` and `bench speed` that has both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from bench.calibrate.clock import COUNTS
from bench.pictures import elided
from bench.report.drawing import MARKERS, drawing
from bench.report.memory import run_name
from bench.report.section import Picture, Section, Table, commands, marked, of_kind, short
from bench.results.records import Record

MISSING: Final = "ggufphys bench calibrate; python -m bench.results.run bench speed MODEL.gguf"
PHASES: Final = {"prefill_tok_per_s": "prefill", "decode_tok_per_s": "decode"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A figure of a run: tokens a second, predicted and measured; `busy` where the machine did other things, too."""

    run: Record
    name: str
    phase: str
    predicted: float
    measured: float
    busy: bool = False

    @property
    def off(self) -> float:
        """Predicted less measured, in percent of the measured."""
        return 100 * (self.predicted - self.measured) / self.measured


def speed(records: Sequence[Record]) -> Section:
    """Tokens a second with their residuals."""
    pairs = speed_pairs(records)
    if not pairs:
        return Section(key="speed", title="Speed: predicted and measured", missing=MISSING)
    phases = list(dict.fromkeys(pair.phase.split()[0] for pair in pairs))
    calm = [pair for pair in pairs if not pair.busy]
    off = {phase: [abs(p.off) for p in calm if p.phase.split()[0] == phase] for phase in phases}
    said = [
        f"{phase} by {median(found):.1f} % in the median, {max(found):.1f} % at most"
        for phase, found in off.items()
        if found
    ]
    n_busy = len(pairs) - len(calm)
    disturbed = (
        f"{n_busy} of {len(pairs)} figures met other work on the machine, and are in the table alone." if n_busy else ""
    )
    return Section(
        key="speed",
        title="Speed: predicted and measured",
        missing=MISSING,
        text=tuple(filter(None, (f"Predictions were off: {'; '.join(said)}." if said else "", disturbed))),
        tables=(speed_table(pairs),),
        pictures=(_picture(calm, phases),) if calm else (),
        commands=commands(pair.run for pair in pairs),
    )


def speed_pairs(records: Sequence[Record]) -> list[Pair]:
    """Each figure that was both predicted and measured."""
    return [*_of_bench_speed(records), *_of_measure(records)]


def _of_measure(records: Sequence[Record]) -> Iterator[Pair]:
    for run in of_kind(records, "measure"):
        for row in run.result["rows"]:
            phase = PHASES.get(row["quantity"])
            predicted, measured = value(row["predicted"]), value(row["measured"])
            if phase and predicted and measured:
                yield Pair(run=run, name=run_name(run), phase=phase, predicted=predicted, measured=measured)


def _of_bench_speed(records: Sequence[Record]) -> Iterator[Pair]:
    for run in of_kind(records, "speed"):
        for row in run.result["rows"]:
            threads = f"{row['n_threads']} thread{'s' * (row['n_threads'] != 1)}"
            name = f"{short(row['file'])}, {threads}{'' if row['repacked'] else ', as they are'}"
            yield Pair(
                run=run, name=marked(name, run),
                phase=f"{row['quantity']} {row['n']:,}", predicted=row["predicted"], measured=row["measured"],
                busy=is_busy(row),
            )  # fmt: skip


def is_busy(row: Mapping[str, Any]) -> bool:
    """Whether a thread of ours waited for a processor meanwhile: such a figure says more of others' work."""
    return bool(row.get("busy", 0.0) > COUNTS)


def speed_table(pairs: Sequence[Pair]) -> Table:
    """A row for each predicted and measured figure."""
    rows = [
        (
            p.name,
            f"{p.phase}{' (busy)' * p.busy}",
            f"{p.predicted:,.1f}",
            f"{p.measured:,.1f}",
            f"{p.off:+.1f} %".replace("-", "−"),
        )
        for p in pairs
    ]
    header = ("model", "phase", "tokens/s: predicted", "measured", "error")
    return Table(header=header, rows=rows, right=(2, 3, 4))


def value(figure: float | Mapping[str, Any] | None) -> float | None:
    """A figure's middle: it is a number, or has bounds beside it."""
    return figure.get("value") if isinstance(figure, Mapping) else figure


def _picture(pairs: Sequence[Pair], phases: Sequence[str]) -> Picture:
    names = list(dict.fromkeys(pair.name for pair in pairs))
    with drawing("speed", 9.5, 1.2 + 0.42 * len(names)) as d:
        axes = d.figure.subplots()
        for k, phase in enumerate(phases):
            found = [pair for pair in pairs if pair.phase.split()[0] == phase]
            at = [names.index(pair.name) + 0.22 * (k - (len(phases) - 1) / 2) for pair in found]
            axes.plot(
                [pair.off for pair in found],
                at,
                MARKERS[k % 8],
                color=("0.1", "#0072b2", "#d55e00")[k % 3],
                label=phase,
            )
        axes.axvline(0, color="0.2", linewidth=1)
        axes.axvspan(-10, 10, color="0.92", zorder=0)
        axes.set_yticks(range(len(names)), map(elided, names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("tokens a second: predicted − measured, % of the measured")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False)
    return Picture(svg=d.svg, caption="How far predicted tokens a second were off; grey is ±10 %.")
