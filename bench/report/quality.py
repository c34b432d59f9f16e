"""Quality: how far each file's predictions are from its base's, against its bits a weight."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench.pictures import elided
from bench.report.drawing import LINE_COLORS, LINES, MARKERS, drawing, plain_ticks
from bench.report.labels import name_points
from bench.report.section import Picture, Section, Table, commands, marked, of_kind, short
from bench.results.records import Record

MISSING: Final = "python -m bench.results.run bench quality F16 Q8_0 Q6_K Q5_K_M Q4_K_M Q3_K_M Q2_K IQ4_XS"


def quality(records: Sequence[Record]) -> Section:
    """Perplexity and divergence from the base by bits a weight."""
    runs = [run for run in of_kind(records, "quality") if run.result.get("results")]
    if not runs:
        return Section(key="quality", title="Quality and bits", missing=MISSING)
    compared = [run for run in runs if any(row.get("kl_mean") is not None for row in run.result["results"])]
    return Section(
        key="quality",
        title="Quality and bits",
        missing=MISSING,
        text=(
            "A file's Kullback-Leibler divergence says how far its predictions are from those of the first in its "
            "table, token by token, in nats (± a standard error); top token: how often both would choose the same one.",
            *_again(runs),
        ),
        tables=tuple(_table(run) for run in runs),
        pictures=(_picture(compared),) if compared else (),
        commands=commands(runs),
    )


def _again(runs: Sequence[Record]) -> Iterator[str]:
    """What was quantised twice."""
    found = []
    for run in runs:
        sources = {row.get("requantised_from") for row in run.result["results"]} - {None}
        if sources:
            found.append(f"{_base_name(run)} ({' and '.join(sorted(sources))})")
    if found:
        yield f"Files beside {', '.join(found)} were made of these, which are quantised already: worse than of floats."


def _base_name(run: Record) -> str:
    row = run.result["results"][0]
    name, file = _name(row), short(row.get("file") or "")
    return marked(name if not file or file in name else f"{file} ({name})", run)


def _table(run: Record) -> Table:
    rows = [
        (
            _name(row) if i else _base_name(run),
            f"{row['file_bytes'] / (1 << 20):,.1f}",
            _figure(row, "bpw", "{:.2f}"),
            f"{row['perplexity']:.3f}",
            _figure(row, "kl_mean", "{:.5f}") + _figure(row, "kl_mean_se", " ± {:.5f}"),
            _figure(row, "kl_p99", "{:.4f}"),
            "" if row.get("top1") is None else f"{100 * row['top1']:.2f} %",
            f"{row['n_tokens']:,}",
        )
        for i, row in enumerate(run.result["results"])
    ]
    header = ("file", "MiB", "bits a weight", "perplexity", "KL mean", "KL p99", "same top token", "tokens judged")
    return Table(header=header, rows=rows, right=range(1, len(header)))


def _name(row: dict[str, Any]) -> str:
    types = {side: row.get(f"type_{side}", "f16") for side in "kv"}
    caches = [f"{side.upper()} {kept}" for side, kept in types.items() if kept != "f16" and kept not in row["model"]]
    return ", ".join([short(row["model"]), *caches])


def _figure(row: dict[str, Any], name: str, form: str) -> str:
    return "" if row.get(name) is None else form.format(row[name])


def _is_plain(row: dict[str, Any]) -> bool:
    """Whether it differs from its base in the file's bits, not in the cache's."""
    return all(row.get(f"type_{side}", "f16") == "f16" for side in "kv")


def _picture(runs: Sequence[Record]) -> Picture:
    with drawing("quality", 9.5, 4.6) as d:
        axes = d.figure.subplots()
        lines = [_points(run) for run in runs]
        for i, (run, line) in enumerate(zip(runs, lines, strict=True)):
            axes.plot(
                [x for x, _, _ in line], [y for _, y, _ in line], color=LINE_COLORS[i % 7], linestyle=LINES[i % 4],
                marker=MARKERS[i % 8], label=elided(f"beside {_base_name(run)}"),
            )  # fmt: skip
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
        axes.set_xlabel("bits a weight")
        axes.set_ylabel("mean KL divergence from the base, nats")
        axes.margins(x=0.06, y=0.08)
        d.figure.legend(loc="outside upper center", ncols=2, frameon=False)
        name_points(axes, [point for line in lines for point in line], lines, font_size=8)
    return Picture(svg=d.svg, caption="Lower is nearer to the base; the scale is logarithmic.")


def _points(run: Record) -> list[tuple[float, float, str]]:
    """Bits a weight, divergence and type of each file that differs from its base."""
    rows = [row for row in run.result["results"] if row.get("kl_mean") and row.get("bpw") and _is_plain(row)]
    return sorted((row["bpw"], row["kl_mean"], elided(row.get("file_type") or _name(row))) for row in rows)
