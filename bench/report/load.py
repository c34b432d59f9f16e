"""Load: throughput and latency against clients, of every recorded `ggufphys bench load`."""

from collections.abc import Sequence
from typing import Any, Final

from bench.pictures import elided
from bench.report.drawing import LINE_COLORS, LINES, MARKERS, drawing
from bench.report.section import Picture, Section, Table, commands, marked, of_kind, short
from bench.results.records import Record

MISSING: Final = "ggufphys serve MODEL.gguf & python -m bench.results.run bench load http://127.0.0.1:8080 -c 1,2,4,8"


def load(records: Sequence[Record]) -> Section:
    """Tokens a second, time to the first token, time a token."""
    runs = of_kind(records, "load")
    if not runs:
        return Section(key="load", title="A server under load", missing=MISSING)
    return Section(
        key="load",
        title="A server under load",
        missing=MISSING,
        text=tuple(_sentence(run) for run in runs),
        tables=(Table(header=_HEADER, rows=[row for run in runs for row in _rows(run)], right=range(1, len(_HEADER))),),
        pictures=(_picture(runs),),
        commands=commands(runs),
    )


_HEADER: Final = (
    "server", "clients", "ok", "requests/s", "tokens/s", "TTFT p50, ms", "TTFT p95, ms", "TPOT p50, ms", "TPOT p95, ms",
    "client's share",
)  # fmt: skip


def _name(run: Record) -> str:
    result = run.result
    return marked(str(result.get("label") or f"{short(result['model'])} at {result['url']}"), run)


def _sentence(run: Record) -> str:
    levels = run.result["levels"]
    best = max(levels, key=lambda level: level["tok_per_s"])
    failed = sum(level["n_requests"] - level["n_ok"] for level in levels)
    all_ok = "all answers complete" if not failed else f"{failed} answers failed"
    return (
        f"{_name(run)}: prompts of {run.result['prompt']} tokens, answers of {run.result['answer']}; at most "
        f"{best['tok_per_s']:.1f} tokens a second, with {_clients(best)}; {all_ok}."
    )


def _clients(level: dict[str, Any]) -> str:
    if level.get("rate_per_s"):
        return f"{level['rate_per_s']:g}/s"
    return f"{level['concurrency']} client{'s' * (level['concurrency'] > 1)}"


def _rows(run: Record) -> list[tuple[str, ...]]:
    return [
        (
            _name(run),
            f"{level['rate_per_s']:g}/s" if level.get("rate_per_s") else str(level["concurrency"]),
            f"{level['n_ok']}/{level['n_requests']}",
            f"{level['req_per_s']:.2f}",
            f"{level['tok_per_s']:.1f}",
            *(_ms(level[name], p) for name in ("ttft_s", "tpot_s") for p in ("p50", "p95")),
            f"{level['client_share']:.1%}",
        )
        for level in run.result["levels"]
    ]


def _ms(spread: dict[str, float] | None, p: str) -> str:
    return "" if spread is None else f"{1e3 * spread[p]:,.1f}"


def _picture(runs: Sequence[Record]) -> Picture:
    with drawing("load", 9.5, 3.4) as d:
        rate, first, each = d.figure.subplots(1, 3)
        for i, run in enumerate(runs):
            levels = [level for level in run.result["levels"] if level["ttft_s"] is not None]
            x = [level.get("rate_per_s") or level["concurrency"] for level in levels]
            style = {"color": LINE_COLORS[i % 7], "linestyle": LINES[i % 4], "marker": MARKERS[i % 8], "markersize": 5}
            rate.plot(x, [level["tok_per_s"] for level in levels], label=elided(_name(run)), **style)
            for axes, name in ((first, "ttft_s"), (each, "tpot_s")):
                known = [(at, level[name]) for at, level in zip(x, levels, strict=True) if level[name] is not None]
                axes.plot([at for at, _ in known], [1e3 * s["p50"] for _, s in known], **style)
                axes.fill_between(
                    [at for at, _ in known], [1e3 * s["p50"] for _, s in known], [1e3 * s["p95"] for _, s in known],
                    alpha=0.18, color=style["color"],
                )  # fmt: skip
        levels = [level for run in runs for level in run.result["levels"]]
        what = dict.fromkeys("requests a second" if level.get("rate_per_s") else "clients at once" for level in levels)
        for axes, title in ((rate, "tokens a second"), (first, "time to first token, ms"), (each, "time a token, ms")):
            axes.set_title(title, fontsize=10)
            axes.set_xlabel(" or ".join(what))
            axes.set_ylim(bottom=0)
            ticks = sorted({level.get("rate_per_s") or level["concurrency"] for level in levels})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        d.figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return Picture(
        svg=d.svg, caption="Left: of whole levels. Middle and right: medians; shades reach to the 95th percentile."
    )
