"""README's tables of predicted and measured figures, made of the recorded results: `make results`.

`python -m bench.report.readme` writes them between their markers.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.report.memory import memory_table
from bench.report.pages import markdown_table
from bench.report.section import of_kind
from bench.report.speed import speed_pairs, speed_table
from bench.results.records import HERE, ROOT, Record, newest, read_records

README: Final = ROOT / "README.md"
NO_SPEED: Final = "No run that predicted speed is recorded yet."


def filled(text: str, records: Sequence[Record]) -> str:
    """The text with the tables of the records between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    for name, table in (("memory", _memory(records)), ("speed", _speed(records))):
        begin, end = f"<!-- results: {name} -->", f"<!-- end of results: {name} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise ValueError(f"README.md: expected {begin} and {end}")
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def recorded() -> list[Record]:
    """The results of this repository."""
    return newest(read_records([HERE]))


def _memory(records: Sequence[Record]) -> str:
    return markdown_table(memory_table([run for run in of_kind(records, "measure") if run.exit == 0]))


def _speed(records: Sequence[Record]) -> str:
    pairs = speed_pairs(records)
    return markdown_table(speed_table(pairs)) if pairs else NO_SPEED


def main(argv: Sequence[str] | None = None) -> int:
    """Write README.md."""
    path = Path((sys.argv[1:] if argv is None else argv)[0]) if (sys.argv[1:] if argv is None else argv) else README
    text = path.read_text(encoding="utf-8")
    path.write_text(filled(text, recorded()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
