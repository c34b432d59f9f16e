"""The roofline: what memory and arithmetic allow at each intensity, and where the measured runs are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from bench.pictures import elided
from bench.report.drawing import COLORS, MARKERS, drawing, plain_ticks
from bench.report.machine import is_readable, product_rates
from bench.report.section import Picture, Section, Table, commands, marked, of_kind, short
from bench.report.speed import is_busy
from bench.results.records import Record

MISSING: Final = "python -m bench.results.run bench calibrate; python -m bench.results.run bench speed MODEL.gguf"
FILLS: Final[Mapping[str, Literal["full", "top", "left"]]] = {"decode": "full", "batch": "top", "prefill": "left"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A phase of a model: FLOPs a byte of weights and cache, FLOPs a second, what the roof allows; of which runs."""

    model: str
    phase: str
    intensity: float
    flops_per_s: float
    roof: float
    runs: tuple[Record, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What one machine's memory, bytes a second, and arithmetic, FLOPs a second, allow with so many threads."""

    calibrated: Record
    n_threads: int
    memory: float
    flops: float
    dots: Sequence[Dot]


def roofline(records: Sequence[Record]) -> Section:
    """Measured phases below the roof of the machine that they ran on, a picture a machine."""
    last = {run.machine_name: run for run in of_kind(records, "calibrate") if run.result.get("processors")}
    costs = {(run.machine_name, short(run.result["model"]["path"]), run.result["costs"]["decode"]["depth"]): run
             for run in of_kind(records, "inspect") if run.result.get("costs")}  # fmt: skip
    roofs = [roof for run in last.values() if (roof := _roof(run, records, costs)).dots]
    if not roofs:
        return Section(key="roofline", title="Roofline", missing=MISSING)
    return Section(
        key="roofline",
        title="Roofline",
        missing=MISSING,
        text=(
            f"The roof is what {' and '.join(map(_said, roofs))} of the fastest type's products allow. A phase "
            "at its slope waits for memory, one at its ceiling for arithmetic; what is far below both pays for "
            "something else: nodes, attention, kernels that are slower than the fastest type's. A small model can lie "
            "above the slope, since its weights stay in the processor's cache.",
        ),
        tables=(Table(header=_HEADER, rows=[row for roof in roofs for row in _rows(roof)], right=range(2, 6)),),
        pictures=tuple(_picture(roof, i) for i, roof in enumerate(roofs)),
        commands=commands(run for roof in roofs for run in (roof.calibrated, *(r for d in roof.dots for r in d.runs))),
    )


_HEADER: Final = (
    "model", "phase", "FLOP a byte of weights and cache", "GFLOP/s measured", "the roof there", "share",
)  # fmt: skip


def _said(roof: Roof) -> str:
    where = f" on {roof.calibrated.mark}" if roof.calibrated.mark else ""
    return f"{roof.memory / 1e9:.1f} GB/s from main memory and {roof.flops / 1e9:,.0f} GFLOP/s{where}"


def _rows(roof: Roof) -> Iterator[tuple[str, ...]]:
    for dot in roof.dots:
        yield (
            marked(dot.model, roof.calibrated), dot.phase, f"{dot.intensity:,.2f}", f"{dot.flops_per_s / 1e9:,.1f}",
            f"{dot.roof / 1e9:,.1f}", f"{dot.flops_per_s / dot.roof:.0%}",
        )  # fmt: skip


def _roof(calibrated: Record, records: Sequence[Record], all_costs: Mapping[tuple[str, str, int], Record]) -> Roof:
    """A machine's roof and what was timed below it, on that machine."""
    records = [run for run in records if run.machine_name == calibrated.machine_name]
    costs = {(model, depth): run for (name, model, depth), run in all_costs.items() if name == calibrated.machine_name}
    host = max((p for p in calibrated.result["processors"] if p["name"] == "CPU"), key=lambda p: p["n_threads"])
    memory, flops = float(host["streams"][-1][1]), _most_flops(calibrated, host)
    dots = list(_of_bench_speed(records, host["n_threads"], memory, flops))
    timed = {dot.model for dot in dots}
    dots += [dot for dot in _of_measure(records, costs, memory, flops) if dot.model not in timed]
    return Roof(calibrated=calibrated, n_threads=host["n_threads"], memory=memory, flops=flops, dots=dots)


def _most_flops(calibrated: Record, host: Mapping[str, Any]) -> float:
    """FLOPs a second of the fastest type's products; of earlier calibrations what is known of all types together."""
    rates = product_rates(host) if host.get("products") and is_readable(calibrated) else {}
    return max((rate for found in rates.values() for rate in found.values()), default=float(host["flops_per_s"]))


def _of_bench_speed(records: Sequence[Record], n_threads: int, memory: float, flops: float) -> Iterator[Dot]:
    """What `bench speed` timed with the roof's threads, weights repacked as llama.cpp has them by itself."""
    for run in of_kind(records, "speed"):
        for row in run.result["rows"]:
            if row["n_threads"] == n_threads and row["repacked"] and row.get("token_bytes") and not is_busy(row):
                intensity = row["token_flops"] / row["token_bytes"]
                yield Dot(
                    model=short(row["file"]), phase=f"{row['quantity']} {row['n']:,}", intensity=intensity,
                    flops_per_s=row["token_flops"] * row["measured"], roof=min(flops, intensity * memory), runs=(run,),
                )  # fmt: skip


def _of_measure(
    records: Sequence[Record], costs: Mapping[tuple[str, int], Record], memory: float, flops: float
) -> Iterator[Dot]:
    for run in of_kind(records, "measure"):
        speed, model = run.result.get("speed"), short(run.result.get("model") or "")
        depths = [depth for name, depth in costs if name == model]
        if not speed or not depths or "--no-repack" in run.command:
            continue
        for phase, depth in (("prefill", 0), ("decode", speed["n_prompt"])):
            nearest = min(depths, key=lambda at: abs(at - depth))
            phase_costs: dict[str, Any] = costs[model, nearest].result["costs"][phase]
            total, rate = phase_costs["total"], speed.get(f"{phase}_tok_per_s")
            nbytes = sum(total[f"{name}_bytes"] for name in ("weight", "cache_read", "cache_written"))
            if rate and nbytes:
                intensity = total["flops"] / nbytes
                reached = total["flops"] / phase_costs["n_tokens"] * rate
                yield Dot(model=model, phase=phase, intensity=intensity, flops_per_s=reached,
                          roof=min(flops, intensity * memory), runs=(run, costs[model, nearest]))  # fmt: skip


def _picture(roof: Roof, i: int) -> Picture:
    dots, memory, flops, n_threads = roof.dots, roof.memory, roof.flops, roof.n_threads
    with drawing(f"roofline{i}", 9.5, 4.2) as d:
        axes = d.figure.subplots()
        low = min(0.5, *(dot.intensity for dot in dots)) / 1.5
        high = max(2 * flops / memory, *(dot.intensity for dot in dots)) * 2
        axes.plot(
            [low, flops / memory, high], [low * memory / 1e9, flops / 1e9, flops / 1e9], color="0.15", linewidth=2
        )
        models = list(dict.fromkeys(dot.model for dot in dots))
        firsts = {model: next(dot for dot in dots if dot.model == model) for model in models}
        for dot in dots:
            k = models.index(dot.model)
            axes.plot(
                dot.intensity, dot.flops_per_s / 1e9, MARKERS[k % 8], color=COLORS[k % 8], markeredgecolor="0.2",
                markersize=8, fillstyle=FILLS[dot.phase.split()[0]], linestyle="none",
                label=elided(dot.model) if dot is firsts[dot.model] else None,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        axes.set_xlabel("FLOP a byte of weights and cache")
        axes.set_ylabel("GFLOP/s")
        axes.legend(frameon=False, loc="lower right")
    where = f"Machine {roof.calibrated.mark}, " if roof.calibrated.mark else ""
    return Picture(
        svg=d.svg,
        caption=f"{where}{n_threads} thread{'s' * (n_threads != 1)}. Full markers: decode of one sequence; their upper "
        "half alone: of several; their left half: prefill.",
    )
