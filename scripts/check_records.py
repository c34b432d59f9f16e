"""How often are predictions for every architecture exactly what llama.cpp accounts? A table, and exit 1 if not always.

usage: python -m scripts.check_records [-v] [-a]        -v: each row that is wrong; -a: a line for each architecture

Compares with what `scripts/record_oracle.py` recorded of the small models in `tests/data`, and `record_variants.py` of
files like them with a tensor less or more: needs no llama.cpp.
"""

import argparse
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.running.program import run_program
from ggufphys.arch import RULES
from ggufphys.report.inspection import table
from tests import archs, variants
from tests.arch_checks import Check, checks
from tests.variant_checks import VariantCheck
from tests.variant_checks import checks as checks_of

KINDS = ("host", "devices")


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-v", action="store_true", dest="verbose", help="print each row that is wrong")
    parser.add_argument("-a", action="store_true", dest="by_arch", help="print a line for each architecture")
    args = parser.parse_args()
    found: dict[str, list[Check]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in archs.records():
            found[name] = list(checks(name, Path(folder)))
    architectures = {archs.models()[name].arch for name in found}
    print(f"{len(architectures)} of {len(RULES)} architectures in the table, {len(found)} models of them\n")
    print("model and context bytes         rows  exact  of them refused by both  llama.cpp aborts: not compared")
    every = [check for rows in found.values() for check in rows]
    for kind in KINDS:
        print(_line(kind, [check for check in every if bool(check.params.devices) == (kind == "devices")]))
    print("\ncompute bytes                   rows  exact  within 10 %  median error  architectures always exact")
    print(_compute_lines(found))
    if args.by_arch:
        print(f"\n{_by_architecture(found)}")
    of_variants = _variants()
    print(f"\n{_by_kind(of_variants)}")
    wrong: list[tuple[str, Check | VariantCheck]] = [(name, check) for name, rows in found.items() for check in rows]
    wrong += [(f"{check.variant.name} {check.variant.label}", check) for check in of_variants]
    wrong = [(name, check) for name, check in wrong if check.counts and not check.exact]
    for name, check in wrong if args.verbose else ():
        print(f"\n{name}: {check.params}\n  ours {check.ours}\n  llama.cpp {check.llama_cpp}")
    return 1 if wrong else 0


def _line(kind: str, rows: Sequence[Check]) -> str:
    counts = Counter(
        word
        for check in rows
        for word, holds in (
            ("compared", check.counts),
            ("exact", check.counts and check.exact),
            ("refused", check.counts and check.exact and check.ours == "refused"),
            ("aborts", not check.counts),
        )
        if holds
    )
    title = {"host": "on the host", "devices": "with one and two devices"}[kind]
    return f"{title:<30} {counts['compared']:>5} {counts['exact']:>6} {counts['refused']:>24} {counts['aborts']:>30}"


def _compute_lines(found: dict[str, list[Check]]) -> str:
    lines = []
    for title, exact_basis in (("basis exact", True), ("basis estimate", False)):
        errors: dict[str, list[float]] = defaultdict(list)
        for name, rows in found.items():
            for check in rows:
                if check.compute is not None and check.compute_is_exact is exact_basis:
                    errors[archs.models()[name].arch].append(check.compute[0] / check.compute[1] - 1)
        flat = [abs(error) for each in errors.values() for error in each]
        if flat:
            always = sum(not any(each) for each in errors.values())
            lines.append(
                f"{title:<30} {len(flat):>5} {flat.count(0):>6} {sum(e <= 0.1 for e in flat):>12}"
                f" {statistics.median(flat):>13.2%} {always:>15} of {len(errors)}"
            )
    return "\n".join(lines)


def _variants() -> list[VariantCheck]:
    with tempfile.TemporaryDirectory() as folder:
        return [c for variant, rows in variants.records().items() for c in checks_of(variant, rows, Path(folder))]


def _by_kind(checked: Sequence[VariantCheck]) -> str:
    """Files and rows of each kind of variant: model, context and compute bytes together."""
    rows: dict[str, list[VariantCheck]] = {kind: [] for kind, _ in variants.KINDS}
    for check in checked:
        rows.setdefault(check.variant.kind, []).append(check)
    lines = [_kind_line(kind, found) for kind, found in rows.items()]
    heads = ("variants: model, context and compute bytes", "files", "rows", "exact", "refused by both", "aborts")
    return "\n".join(table(heads, [*lines, _kind_line("all", checked)], right=(1, 2, 3, 4, 5)))


def _kind_line(kind: str, checked: Sequence[VariantCheck]) -> tuple[str, ...]:
    compared = [check for check in checked if check.counts]
    exact = [check for check in compared if check.exact]
    numbers = (
        len({check.variant for check in checked}), len(compared), len(exact),
        sum(check.ours == "refused" for check in exact), len(checked) - len(compared),
    )  # fmt: skip
    return kind, *map(str, numbers)


def _by_architecture(found: dict[str, list[Check]]) -> str:
    """Rows exact of rows: model and context bytes, on the host and with devices, and compute bytes."""
    rows: dict[str, list[Check]] = defaultdict(list)
    for name, checked in found.items():
        rows[archs.models()[name].arch] += checked
    table_rows = []
    for arch, checked in sorted(rows.items()):
        compared = [check for check in checked if check.counts]
        sizes = [check.compute for check in checked if check.compute is not None]
        table_rows.append(
            (
                arch,
                f"{sum(check.exact for check in compared)}/{len(compared)}",
                f"{sum(ours == theirs for ours, theirs in sizes)}/{len(sizes)}",
            )
        )
    return "\n".join(table(("architecture", "model and context", "compute"), table_rows, right=(1, 2)))


if __name__ == "__main__":
    run_program(main)
