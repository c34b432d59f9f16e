"""Load, as a table, as JSON, as CSV, and each request as a line of JSON."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.load.client import Answer
from bench.load.loops import Round
from bench.load.summary import Spread, Summary
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.units import format_bytes

PLAIN: Final = (
    "concurrency", "rate_per_s", "n_requests", "n_ok", "req_per_s", "tok_per_s", "goodput_per_s", "client_share",
)  # fmt: skip
LENGTHS_ALIKE: Final = 0.1  # by so much means may differ from what was asked for
COLUMNS: Final = ("ttft_s", "gap_s", "tpot_s", "e2e_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """All levels of one run, how they were asked for, and what the server took in memory before and after.

    `goal` are the limits that answers had to keep, seconds; `stopped` says that it was ended before all was done.
    """

    label: str
    url: str
    model: str
    endpoint: str
    prompt: str
    answer: str
    shared: int
    seed: int
    goal: Mapping[str, float] | None
    levels: tuple[Summary, ...]
    stopped: bool = False
    rss_before_bytes: int | None = None
    rss_after_bytes: int | None = None
    notes: tuple[str, ...] = ()


def as_text(report: LoadReport) -> str:
    """A row a level: rates, then milliseconds at the median and the 95th percentile."""
    rows = [
        (
            f"{s.rate_per_s:g}/s" if s.rate_per_s else str(s.concurrency),
            f"{s.n_ok}/{s.n_requests}",
            f"{s.req_per_s:.2f}",
            f"{s.tok_per_s:.1f}",
            *(_pair(spread) for spread in (s.ttft_s, s.gap_s, s.tpot_s, s.e2e_s)),
            "" if s.goodput_per_s is None else f"{s.goodput_per_s:.2f}",
            ", ".join(f"{n} {kind}" for kind, n in s.errors.items()),
        )
        for s in report.levels
    ]
    header = ["clients", "ok", "req/s", "tok/s", "TTFT", "gap", "TPOT", "end to end", "good/s", "errors"]
    shared = f", the first {report.shared} shared" if report.shared else ", all distinct"
    lines = [
        f"{report.model or 'the only model'} at {report.url}/{report.endpoint}",
        f"prompts of {report.prompt} tokens{shared}; answers of {report.answer}",
        "",
        *table(header, rows, right=(0, 1, 2, 3, 4, 5, 6, 7, 8)),
        "",
        "times in ms: median / 95th percentile; TPOT = (end to end - TTFT) / (tokens - 1), as vLLM has it",
    ]
    if report.rss_before_bytes is not None:
        most = [s.rss_bytes or 0 for s in report.levels]
        after = "gone" if report.rss_after_bytes is None else format_bytes(report.rss_after_bytes)
        lines.append(
            f"server's resident memory: {format_bytes(report.rss_before_bytes)} before, {format_bytes(max(most))} at "
            f"most, {after} after"
        )
    return "\n".join(lines)


def as_json(report: LoadReport) -> str:
    """One document; `levels` has a Summary each."""
    return dumps({"schema_version": SCHEMA_VERSION, "kind": "load", **asdict(report)})


def as_csv(report: LoadReport) -> str:
    """A row a level, percentiles in columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"{column}_{p}" for column in COLUMNS for p in ("p50", "p95", "p99")]
    writer.writerow((*PLAIN, *names))
    for level in report.levels:
        spreads = [getattr(level, column) for column in COLUMNS]
        points = [getattr(s, p) if s is not None else "" for s in spreads for p in ("p50", "p95", "p99")]
        writer.writerow((*(getattr(level, name) for name in PLAIN), *points))
    return out.getvalue()


def request_lines(rounds: Iterable[Round]) -> Iterator[str]:
    """Each request as a JSON object; times are relative to the first request of all."""
    kept = list(rounds)
    start = min((answer.sent_s for r in kept for answer in r.answers), default=0.0)
    for i, r in enumerate(kept):
        for answer in sorted(r.answers, key=lambda a: a.sent_s):
            yield json.dumps({"round": i, "level": str(r.level), **_request(answer, start)})


def _request(answer: Answer, start: float) -> dict[str, Any]:
    return {
        "sent_s": answer.sent_s - start, "ttft_s": answer.ttft_s, "tpot_s": answer.tpot_s, "e2e_s": answer.e2e_s,
        "pieces_s": [round(at - answer.sent_s, 6) for at in answer.pieces], "n_pieces": len(answer.pieces),
        "n_prompt": answer.n_prompt, "n_predict": answer.n_predict, "n_prompt_wanted": answer.n_prompt_wanted,
        "n_predict_wanted": answer.n_predict_wanted, "finish": answer.finish, "error": answer.error,
        "detail": answer.detail,
    }  # fmt: skip


def _pair(spread: Spread | None) -> str:
    return "" if spread is None else f"{1e3 * spread.p50:.4g} / {1e3 * spread.p95:.4g}"


def notes_on(levels: Sequence[Summary]) -> Iterator[str]:
    """What a reader should know about the figures, a sentence each."""
    yield from _other_lengths(levels)
    for s in levels:
        clients = f"with {s.concurrency} client{'s' * (s.concurrency != 1)}"
        name = f"at {s.rate_per_s:g}/s" if s.rate_per_s else clients
        if s.client_is_limit:
            yield f"{name}, this client took {s.client_share:.0%} of a core: it may be what was measured"
        if s.n_ok and s.n_counted < s.n_ok:
            yield f"{name}, the server did not count tokens of {s.n_ok - s.n_counted} answers: pieces are counted there"
        if s.n_empty:
            yield f"{name}, {s.n_empty} answers had no content: they count for requests a second, not as good ones"
        if s.n_miscounted:
            yield f"{name}, the server counted fewer tokens of {s.n_miscounted} answers than pieces came: is it right?"
        for kind, detail in s.error_details.items():
            if detail:
                yield f"{name}, {kind}: {detail}"


def _other_lengths(levels: Sequence[Summary]) -> Iterator[str]:
    """Where prompts or answers were of other lengths than asked for, so that the work was other; each told once."""
    for what, name, why in (
        ("prompts", "n_prompt", "figures are of these"),
        ("answers", "n_predict", "many servers go on with --extra '{\"ignore_eos\": true}'"),
    ):
        pairs = [(getattr(s, f"{name}_mean"), getattr(s, f"{name}_wanted_mean")) for s in levels]
        others = [(a, b) for a, b in pairs if a is not None and b and abs(a / b - 1) > LENGTHS_ALIKE]
        if others:
            found, wanted = others[0]
            where = "" if len(others) == len(levels) else f" at {len(others)} of {len(levels)} levels"
            yield f"{what} had {found:.0f} tokens on average where {wanted:.0f} were asked for{where}: {why}"
