"""How often is our verdict on a file llama.cpp's own? Random single changes of headers, each disagreement named.

usage: python -m scripts.check_loads [FILE.gguf ...] [-n CHANGES] [--seed SEED] [--only KIND] [--model NAME]

Without files: the small models of `tests/data`. Exit 1 if a verdict differs, takes longer than a second, or is none.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ggufphys
from bench.running.program import run_program
from tests.load_changes import Change, Draft, random_change, read_draft
from tests.load_models import own_drafts
from tests.load_oracle import Answer, LoadOracle

SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """One change, llama.cpp's answer and ours."""

    number: int
    change: Change
    theirs: Answer
    ours: tuple[ggufphys.Refusal, ...]
    failure: str  # what went wrong where there was no verdict
    seconds: float

    @property
    def agrees(self) -> bool:
        """Is it the same verdict? Of a refusal also when it comes, and whether it ends the process."""
        if self.failure or not self.ours:
            return not self.failure and self.theirs.accepted
        first, theirs = self.ours[0], self.theirs
        found = not theirs.accepted, theirs.loads, theirs.outcome == "ends"
        return found == (True, first.in_context, first.ends_process)


def rows(drafts: Sequence[Draft], n: int, seed: int, only: str = "", numbers: Sequence[int] = ()) -> Iterator[Row]:
    """`n` changes: model after model, each change made from the seed and its number."""
    with tempfile.TemporaryDirectory() as folder, LoadOracle() as oracle:
        path = Path(folder) / "changed.gguf"
        for number in numbers or range(n):
            change = random_change(drafts[number % len(drafts)], random.Random(f"{seed} {number}"))
            if only and only not in change.kind:
                continue
            change.draft.write(path)
            ours, failure, seconds = _verdict(path)
            theirs = oracle.ask(path)
            yield Row(number, change, theirs, ours, failure, seconds)


def _verdict(path: Path) -> tuple[tuple[ggufphys.Refusal, ...], str, float]:
    start = time.process_time()
    try:
        with ggufphys.open_gguf(path) as gguf:
            ours, failure = ggufphys.check_loads(gguf, ggufphys.Params(n_ctx=512)), ""
    except ggufphys.GGUFError as error:
        ours, failure = (_unreadable(error),), ""
    except Exception as error:  # what this looks for
        ours, failure = (), f"{type(error).__name__}: {error}"
    return ours, failure, time.process_time() - start


def _unreadable(error: Exception) -> ggufphys.Refusal:
    return ggufphys.Refusal(what=str(error), where="header", found="", expected="", source="")


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="model files (default: the small models)")
    parser.add_argument("-n", type=int, default=1000, help="how many changes are tried (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (default 1)")
    parser.add_argument("--only", default="", help="changes of this kind alone")
    parser.add_argument("--model", default="", help="models whose name has this in it")
    parser.add_argument("--number", type=int, action="append", default=[], help="these changes alone")
    parser.add_argument("-v", action="store_true", dest="verbose", help="print what agrees, too")
    args = parser.parse_args()
    drafts = [read_draft(path) for path in args.files] if args.files else list(own_drafts())
    drafts = [draft for draft in drafts if args.model in draft.name]
    seen: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    bad = 0
    for row in rows(drafts, args.n, args.seed, args.only, args.number):
        seen[row.change.kind] += 1
        agreed[row.change.kind] += row.agrees
        wrong = not row.agrees or row.seconds > SECONDS
        bad += wrong
        if wrong or args.verbose:
            print(describe(row), flush=True)
    for kind, n in sorted(seen.items()):
        print(f"{kind:14}{n:6,}{agreed[kind]:7,}{100 * agreed[kind] / n:8.2f} %")
    n = seen.total()
    print(f"{'all':14}{n:6,}{agreed.total():7,}{100 * agreed.total() / max(n, 1):8.2f} %")
    return 1 if bad else 0


def describe(row: Row) -> str:
    """A disagreement in words: what was changed, and what both say."""
    ours = row.failure or " | ".join(map(str, row.ours[:3])) or "accepted"
    return (
        f"{row.number} {row.change.draft.name}: {row.change.kind}: {row.change.what}  [{row.seconds:.2f} s]\n"
        f"    ours: {ours}\n    llama.cpp: {row.theirs.outcome}: {row.theirs.says}"
    )


if __name__ == "__main__":
    run_program(main)
