"""Quality: how far each file's predictions are from its base's, against its bits a weight."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench.report.drawing import LINE_COLORS, LINES, MARKERS, drawing, elided
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
    with drawing("quality", 9.5, 3.8) as d:
        axes = d.figure.subplots()
        for i, run in enumerate(runs):
            rows = [row for row in run.result["results"] if row.get("kl_mean") and row.get("bpw") and _is_plain(row)]
            rows.sort(key=lambda row: row["bpw"])
            axes.plot(
                [row["bpw"] for row in rows], [row["kl_mean"] for row in rows], color=LINE_COLORS[i % 7],
                linestyle=LINES[i % 4], marker=MARKERS[i % 8], label=elided(f"beside {_base_name(run)}"),
            )  # fmt: skip
            for row in rows:
                axes.annotate(
                    elided(row.get("file_type") or _name(row)), (row["bpw"], row["kl_mean"]), xytext=(5, 4),
                    textcoords="offset points", fontsize=8,
                )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("bits a weight")
        axes.set_ylabel("mean KL divergence from the base, nats")
        axes.legend(frameon=False)
    return Picture(svg=d.svg, caption="Lower is nearer to the base; the scale is logarithmic.")
