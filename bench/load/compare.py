"""`ggufphys bench compare A.json B.json`: one load beside another, level by level, as ratios of B to A.

With `--fail-if 'tok_s<0.95'` it is a gate: a ratio that the condition holds for makes it exit 1.
"""

import argparse
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final

from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.units import parse_json, read_text

# name of a ratio: where its figure stands in a level; `ok` is the share of requests that were answered
FIGURES: Final[Mapping[str, tuple[str, ...]]] = {
    "tok_s": ("tok_per_s",),
    "req_s": ("req_per_s",),
    "good_s": ("goodput_per_s",),
    "ttft_p50": ("ttft_s", "p50"),
    "ttft_p95": ("ttft_s", "p95"),
    "ttft_p99": ("ttft_s", "p99"),
    "gap_p50": ("gap_s", "p50"),
    "gap_p95": ("gap_s", "p95"),
    "tpot_p50": ("tpot_s", "p50"),
    "tpot_p95": ("tpot_s", "p95"),
    "e2e_p50": ("e2e_s", "p50"),
    "e2e_p95": ("e2e_s", "p95"),
    "ok": ("ok_share",),
    "rss": ("rss_bytes",),
}
_SIGNS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """`tok_s<0.95`: the ratio of a figure that is not wanted."""

    figure: str
    sign: str
    limit: float

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is one that is not wanted."""
        return _SIGNS[self.sign](ratio, self.limit)

    def __str__(self) -> str:
        return f"{self.figure}{self.sign}{self.limit:g}"


def condition(text: str) -> Condition:
    """Read a condition such as `tok_s<0.95`.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)\s*([\d.]+)\s*", text)
    if match is None or match[1] not in FIGURES:
        raise argparse.ArgumentTypeError(f"{text!r}: expected FIGURE<NUMBER, of {', '.join(FIGURES)}")
    try:
        return Condition(match[1], match[2], float(match[3]))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {match[3]!r} is no number") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two documents of `bench load --json`, and what must not be."""
    parser.add_argument("a", type=Path, metavar="A.json", help="what `bench load --json` printed")
    parser.add_argument("b", type=Path, metavar="B.json", help="the same of another server, or another day")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--fail-if", type=condition, action="append", default=[], metavar="'tok_s<0.95'",
        help=f"exit 1 where B's figure by A's is so, or is missing, at any level of A; of {', '.join(FIGURES)}",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the ratios; exit 1 when a condition holds, or cannot be told at a level that A has.

    Raises:
        ValueError: a file is no document of `bench load`, or they have no level in common.
    """
    a, b = _levels(args.a), _levels(args.b)
    ratios = dict(compare(a, b))
    if not ratios:
        raise ValueError(f"{args.a} and {args.b} have no level in common")
    failed = [said for level in a for c in args.fail_if if (said := _failure(c, level, a[level], b.get(level)))]
    if args.json:
        print(dumps({"schema_version": SCHEMA_VERSION, "kind": "compare", "ratios": ratios, "failed": failed}))
    else:
        names = [name for name in FIGURES if any(name in found for found in ratios.values())]
        rows = [(level, *(f"{found[n]:.3f}" if n in found else "" for n in names)) for level, found in ratios.items()]
        print(f"{args.b.name} by {args.a.name}")
        print("\n".join(table(("level", *names), rows, right=range(1, len(names) + 1))))
    for one, other, path in ((a, b, args.a), (b, a, args.b)):
        if alone := [level for level in one if level not in other]:
            print(f"ggufphys: in {path} alone: {', '.join(alone)}", file=sys.stderr)
    for line in failed:
        print(f"ggufphys: {line}", file=sys.stderr)
    return 1 if failed else 0


def _failure(c: Condition, name: str, a: Mapping[str, Any], b: Mapping[str, Any] | None) -> str:
    """Why a condition fails a level; empty where it does not. What cannot be compared is no pass."""
    if b is None:
        return f"{name}: B lacks this level, so {c} cannot be told"
    x, y = (_figure(level, FIGURES[c.figure]) for level in (a, b))
    if x is None and y is None:
        return f"{name}: neither has {c.figure}, so {c} cannot be told"
    if not x or y is None:
        return f"{name}: {c.figure} is {_said(x)} in A and {_said(y)} in B, so {c} cannot be told"
    return f"{name}: {c.figure} is {y / x:.3f}, and {c} was not to be" if c.holds(y / x) else ""


def _said(figure: float | None) -> str:
    return "missing" if figure is None else f"{figure:g}"


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """For each level of both, B's figures by A's, where both are there and A's is not 0."""
    for name, of_a in a.items():
        if name in b:
            pairs = ((figure, _figure(of_a, path), _figure(b[name], path)) for figure, path in FIGURES.items())
            yield name, {figure: y / x for figure, x, y in pairs if x and y is not None}


def _figure(level: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    """A finite number, or None."""
    value: Any = level
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _levels(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        document = parse_json(text)
        if "levels" not in document:
            raise ValueError("no field 'levels'")
        if (version := document.get("schema_version", SCHEMA_VERSION)) != SCHEMA_VERSION:
            raise ValueError(f"of schema {version}, expected {SCHEMA_VERSION}")
        return {
            f"{level['rate_per_s']:g}/s" if level.get("rate_per_s") else f"{level['concurrency']} clients": {
                **level, "ok_share": _share(level.get("n_ok"), level.get("n_requests")),
            }
            for level in document["levels"]
        }  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not what `ggufphys bench load --json` prints ({error})") from error


def _share(part: Any, whole: Any) -> float | None:
    return part / whole if part is not None and whole else None
