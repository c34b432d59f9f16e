"""Types for numbers on a command line: what is none, or out of bounds, is an error that says what was expected.

Python's own `int` takes `1_0` and digits of other scripts, `float` takes nan: neither is meant by anybody.
"""

import argparse
from collections.abc import Callable
from math import isfinite
from typing import Final

MOST_S: Final = 1_000_000


def count(text: str) -> int:
    """A whole number, or one with `k` (1024) or `m` (1024²) behind it: `8k` is 8192."""
    digits, factor = text, 1
    if text[-1:].lower() in ("k", "m"):
        digits, factor = text[:-1], 1024 if text[-1].lower() == "k" else 1024 * 1024
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a count (expected a whole number such as 8192 or 8k)")
    return int(digits) * factor


def integer(text: str) -> int:
    """A whole number, negative ones too."""
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def at_least(least: int) -> Callable[[str], int]:
    """A count that is not smaller."""

    def number(text: str) -> int:
        found = count(text)
        if found < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least {least}")
        return found

    return number


def counts(least: int, *, or_none: bool = False) -> Callable[[str], tuple[int, ...]]:
    """`1,2,8`: counts that are not smaller, each once; `or_none`: an empty text is none of them."""
    number = at_least(least)

    def numbers(text: str) -> tuple[int, ...]:
        return () if or_none and not text else tuple(dict.fromkeys(number(part) for part in text.split(",")))

    return numbers


def above_zero(text: str) -> float:
    """A number above 0, and finite."""
    try:
        number = float(text) if text.isascii() and "_" not in text else 0.0
    except ValueError:
        number = 0.0
    if not (isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return number


def seconds(text: str) -> float:
    """Seconds to wait: above 0, and no more than the system counts (poll's are milliseconds of 31 bits)."""
    number = above_zero(text)
    if number > MOST_S:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, {MOST_S:,} at most")
    return number
