"""`ggufphys bench report [RESULTS…]`: what recorded results say together, as one page."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.report.hypotheses import hypotheses
from bench.report.load import load
from bench.report.machine import calibration, machine, with_marks
from bench.report.memory import memory
from bench.report.pages import as_html, as_markdown
from bench.report.quality import quality
from bench.report.roofline import roofline
from bench.report.section import Section
from bench.report.speed import speed
from bench.results.records import HERE, Record, newest, read_records
from ggufphys.machine.output import write_whole
from ggufphys.report.inspection import SCHEMA_VERSION, dumps
from ggufphys.units import format_bytes

_STRANGE: Final = (LookupError, TypeError, AttributeError, ValueError, ZeroDivisionError)
SECTIONS: Final = (machine, memory, speed, calibration, roofline, load, quality, hypotheses)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Results, and where to."""
    parser.add_argument(
        "results", nargs="*", type=Path, metavar="RESULTS",
        help="records of `python -m bench.results.run`: files or folders of *.jsonl (default: bench/results)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="the page")
    parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="the same as Markdown, without pictures")
    parser.add_argument("--title", metavar="TEXT", help="(default: the machine's name)")
    parser.add_argument("--json", action="store_true", help="what the page has, and what it lacks, as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Write the page; sections without results name the command that makes them.

    Raises:
        ValueError: a file holds no records, or there are none at all.
    """
    for path, suffix in ((args.output, ".html"), (args.markdown, ".md")):
        if path is not None and path.suffix != suffix:
            raise ValueError(f"{path}: expected a name ending in {suffix}")
    paths = args.results or [HERE]
    records = newest(read_records(paths))
    if not records:
        raise ValueError(
            f"{', '.join(map(str, paths))}: no results; `python -m bench.results.run measure MODEL.gguf` keeps one"
        )
    machines = dict.fromkeys(record.machine_name for record in records)
    title = args.title or f"What local inference costs on {' and on '.join(machines)}"
    sections = sections_of(records)
    if args.output is not None:
        write_whole(args.output, as_html(title, sections))
    if args.markdown is not None:
        write_whole(args.markdown, as_markdown(title, sections))
    if args.json:
        found = [
            {"key": s.key, "title": s.title, "has_results": not s.is_empty, "commands": list(s.commands)}
            | ({"missing": s.missing} if s.is_empty else {})
            for s in sections
        ]
        print(dumps({"schema_version": SCHEMA_VERSION, "kind": "report", "title": title, "sections": found}))
    elif args.output is None and args.markdown is None:
        print(as_markdown(title, sections), end="")
    else:
        for path in filter(None, (args.output, args.markdown)):
            print(f"{path}: {format_bytes(path.stat().st_size)}")
    for section in sections:
        if section.is_empty:
            print(f"ggufphys: no results for {section.title!r}: {section.missing}", file=sys.stderr)
    return 0


def sections_of(records: Sequence[Record]) -> list[Section]:
    """All sections, in order; those without results, too. Records that hold something strange are told and left out."""
    records = with_marks(records)
    try:
        return [make(records) for make in SECTIONS]
    except _STRANGE:
        strange = {i: error for i, record in enumerate(records) if (error := _strange(record)) is not None}
        if not strange:
            raise
        for i, error in strange.items():
            what = f"the {records[i].kind} result of {records[i].command!r}, {records[i].recorded}"
            print(f"ggufphys: {what}, is not what that prints, and is left out ({error!r})", file=sys.stderr)
        return [make([record for i, record in enumerate(records) if i not in strange]) for make in SECTIONS]


def _strange(record: Record) -> Exception | None:
    """What a section that has this record alone ends with."""
    for make in SECTIONS:
        try:
            make([record])
        except _STRANGE as error:
            return error
    return None
