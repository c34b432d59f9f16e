"""Integers between bounds as GBNF: digit by digit, without zeros in front."""

import math
from typing import Final

from server.api.schema_words import Json, SchemaError, bound_of

MOST_DIGITS: Final = 16  # of an integer without a bound, as llama.cpp has it


def integer_gbnf(schema: Json) -> str:
    """Integers between the bounds, of 16 digits or as many as a bound has and one more."""
    lows, highs = [], []
    if "minimum" in schema:
        lows.append(math.ceil(bound_of(schema, "minimum", 0)) + (schema.get("exclusiveMinimum") is True))
    if "maximum" in schema:
        highs.append(math.floor(bound_of(schema, "maximum", 0)) - (schema.get("exclusiveMaximum") is True))
    if type(schema.get("exclusiveMinimum")) in (int, float):
        lows.append(math.floor(schema["exclusiveMinimum"]) + 1)
    if type(schema.get("exclusiveMaximum")) in (int, float):
        highs.append(math.ceil(schema["exclusiveMaximum"]) - 1)
    if not lows and not highs:
        return "integer"
    n_digits = max(MOST_DIGITS, *(len(str(abs(each))) + 1 for each in (*lows, *highs)))
    low, high = max(lows, default=1 - 10**n_digits), min(highs, default=10**n_digits - 1)
    if low > high:
        raise SchemaError(f"there is no integer from {low} to {high}")
    ways = [f'"-" ({between(max(1, -high), -low)})'] if low < 0 else []
    ways += [between(max(0, low), high)] if high >= 0 else []
    return f"({' | '.join(ways)})"


def between(low: int, high: int) -> str:
    """Numbers of 0 or more, without zeros in front."""
    ways = ["[0]"] if low == 0 else []
    low = max(low, 1)
    n = len(str(low))
    while low <= high:
        if low == 10 ** (n - 1) and high >= 10**n - 1:  # all of as many digits, and of more if they are all allowed
            most = len(str(high + 1)) - 1
            ways.append(f"[1-9] [0-9]{{{n - 1},{most - 1}}}")
            n = most
        else:
            ways.append(_digits(str(low), str(min(high, 10**n - 1))))
        low, n = 10**n, n + 1
    return " | ".join(ways)


def _digits(low: str, high: str) -> str:
    """Numbers of as many digits as both have."""
    if not low:
        return ""
    first, last, n = low[0], high[0], len(low) - 1
    if first == last:
        return f"[{first}] {_grouped(_digits(low[1:], high[1:]))}".strip()
    ways = []
    if low[1:].strip("0"):
        ways.append(f"[{first}] {_grouped(_digits(low[1:], '9' * n))}")
        first = chr(ord(first) + 1)
    end = ""
    if high[1:].strip("9"):
        end = f"[{last}] {_grouped(_digits('0' * n, high[1:]))}"
        last = chr(ord(last) - 1)
    if first <= last:
        ways.append(f"[{first}-{last}] [0-9]{{{n}}}" if n else f"[{first}-{last}]")
    return " | ".join([*ways, end] if end else ways)


def _grouped(expression: str) -> str:
    return f"({expression})" if " | " in expression else expression
