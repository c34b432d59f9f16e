"""README's table of predicted and measured figures, made of the recorded results: `make results`.

`python -m bench.report.readme` writes them between their markers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.report.machine import with_marks
from bench.report.overview import common_flags, measured_runs, overview_table
from bench.report.pages import markdown_table
from bench.results.records import HERE, ROOT, Record, newest, read_records
from bench.running.program import existing_file, run_program

README: Final = ROOT / "README.md"


def filled(text: str, records: Sequence[Record]) -> str:
    """The text with the table of the records between its markers, and the flags that all of its runs had.

    Raises:
        ValueError: a marker is missing.
    """
    runs = with_marks(measured_runs(records))
    parts = {"runs": markdown_table(overview_table(runs)), "flags": _said(runs)}
    for name, part in parts.items():
        begin, end = f"<!-- results: {name} -->", f"<!-- end of results: {name} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise ValueError(f"README.md: expected {begin} and {end}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


def recorded() -> list[Record]:
    """The results of this repository."""
    return newest(read_records([HERE]))


def _said(runs: Sequence[Record]) -> str:
    flags = " ".join(["ggufphys measure MODEL", *common_flags(runs)])
    dates = sorted({run.recorded[:10] for run in runs})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    machines = dict.fromkeys(f"{f'{run.mark}: ' * bool(run.mark)}{run.machine_name}" for run in runs)
    return f"A row a run of `{flags}` on {' and '.join(machines)}, {when}."


def main(argv: Sequence[str] | None = None) -> int:
    """Write README.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.report.readme", description=__doc__)
    parser.add_argument("path", nargs="?", type=existing_file, default=README, metavar="FILE", help="(README.md)")
    path: Path = parser.parse_args(argv).path
    text = path.read_text(encoding="utf-8")
    path.write_text(filled(text, recorded()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_program(main)
