"""Has llama.cpp moved? Fetches the newest build there is a wheel of, and says what differs from the newest record.

usage: python -m scripts.watch_builds [--c-library FOLDER] [--keep]      --keep: its record is written, too

For maintainers, weekly. Prints the rows that moved by architecture, and those that the rules do not explain; exit code
1 if there are any, 2 if there is no build newer than the newest record. See docs/builds.md.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.running.program import run_program
from ggufphys.builds import rules_of
from scripts.list_builds import Known, compare, moved, predictions, rules_asked_for
from scripts.record_build import PACKAGE, add_c_library, ask, commit_of, fetch, record
from tests import archs, builds


def main() -> int:
    """Fetch, ask, compare with the newest record and with what is predicted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_c_library(parser)
    parser.add_argument("--keep", action="store_true", help="write its record")
    args = parser.parse_args()
    newest, known = newest_build(), builds.recorded()[-1]
    if newest <= known:
        print(f"the newest wheel is of b{newest}, which is recorded")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch(newest, Path(folder))
        rows = ask(wheel, args.c_library)
        print(f"b{newest} ({commit_of(wheel)}), compared with the record of b{known}")
        if args.keep:
            record(newest, wheel, args.c_library)
    return 1 if report(newest, builds.rows(known), rows) else 0


def newest_build() -> int:
    """The newest build that PyPI has a wheel of."""
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", PACKAGE], stdout=subprocess.PIPE, text=True, check=True
    )
    return max(int(number) for number in re.findall(r"\b0\.(\d{4,})", answer.stdout))


def report(build: int, before: builds.Rows, rows: builds.Rows) -> bool:
    """Print what moved, by architecture, and what no rule explains; is there any of that?"""
    counts: Counter[str] = Counter()
    for name, numbers in moved(before, rows).items():
        counts[archs.models()[name].arch] += len(numbers)
    print(f"rules that hold: {', '.join(sorted(rules_of(build)))}")
    print("\n".join(f"moved: {arch}, {n} rows" for arch, n in sorted(counts.items())) or "nothing moved")
    with rules_asked_for():
        standing = compare(rows, predictions(build, Known()))
    for name, lines in standing.wrong.items():
        print(f"unexplained: {name}, {len(lines)} rows, such as {lines[0]}")
    print(f"{standing.n_exact} of {standing.n_rows} rows as predicted")
    return bool(standing.wrong)


if __name__ == "__main__":
    run_program(main)
