"""Regular expressions of JSON strings as GBNF: what a string's value may be, written as JSON writes it.

Everything that the grammar allows matches the expression; what GBNF cannot say (looking around, back references) is
refused. Characters that JSON spells by an escape are allowed where the expression names them. Bounds of the length
become bounds of the repetitions, so that not each text of that length may be allowed, but no other is.

Source: JSON Schema 2020-12, validation, 6.3.3 (a pattern may match anywhere); llama.cpp 0c1e570 src/llama-grammar.cpp,
parse_char (the escapes of GBNF).
"""

import json
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

_PARSER: Final[Any] = import_module("re._parser")  # as `re` reads expressions
_MOST: Final = 0x10FFFF
_CONTROLS: Final = r"\x00-\x1F\x22\x5C\x7F"  # what JSON writes otherwise, and delete
_ESCAPED: Final = '"\\\b\f\n\r\t'
_CATEGORIES: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "CATEGORY_DIGIT": ((48, 57),),
    "CATEGORY_WORD": ((48, 57), (65, 90), (95, 95), (97, 122)),
    "CATEGORY_SPACE": ((9, 10), (12, 13), (32, 32)),
}

Ranges = Sequence[tuple[int, int]]


class PatternError(ValueError):
    """No expression, or none that a grammar can follow."""


class _Part(NamedTuple):
    """Something that is repeated: its grammar, how many characters it has, and how often it may come (None: any)."""

    text: str
    narrow: int
    wide: int | None
    least: int = 1
    most: int | None = 1


def pattern_gbnf(pattern: str, char: str, low: int = 0, high: int | None = None) -> str:
    """The characters between a string's quotes, from `low` to `high` of them; `char`: the rule of any one.

    Raises:
        PatternError: it cannot be read, not be written as a grammar, or has no texts of that length.
    """
    try:
        parsed = list(_PARSER.parse(pattern))
    except Exception as error:  # `re.error`, and what its parser stumbles over
        raise PatternError(f"the pattern {pattern!r:.80} cannot be read: {error}") from None
    begins = bool(parsed) and _is_anchor(parsed[0], "AT_BEGINNING", "AT_BEGINNING_STRING")
    ends = bool(parsed) and _is_anchor(parsed[-1], "AT_END", "AT_END_STRING")
    any_text = _Part(char, 1, 1, 0, None)
    parts = [any_text] * (not begins) + _parts(parsed[begins : len(parsed) - ends]) + [any_text] * (not ends)
    return " ".join(filter(None, (_repeated(each.text, each.least, each.most) for each in _sized(parts, low, high))))


def literal(text: str) -> str:
    """A text that stands as it is, as GBNF writes it."""
    named = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\", '"': r"\""}
    return '"' + "".join(named.get(c, c if c.isprintable() else _escape(ord(c))) for c in text) + '"'


def characters(ranges: Ranges, *, negated: bool = False) -> str:
    """A set of characters as GBNF writes it."""
    inside = "".join(_escape(low) if low == high else f"{_escape(low)}-{_escape(high)}" for low, high in ranges)
    return f"[^{inside}]" if negated else f"[{inside}]"


def _escape(code: int) -> str:
    if code < 0x100:
        return chr(code) if chr(code).isalnum() and code < 128 else f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _is_anchor(item: Any, *names: str) -> bool:
    return str(item[0]) == "AT" and str(item[1]) in names


def _parts(items: Iterable[Any]) -> list[_Part]:
    """Groups that come once are what is in them."""
    found = []
    for item in items:
        kind, value = str(item[0]), item[1]
        if kind == "SUBPATTERN" and not value[1] and not value[2]:
            found += _parts(value[3])
        elif kind in _REPEATS:
            found.append(_Part(f"({_sequence(value[2]) or _EMPTY})", *_width(value[2]), int(value[0]), _most(value[1])))
        else:
            found.append(_Part(_item(item), *_width([item])))
    return found


def _width(items: Iterable[Any]) -> tuple[int, int | None]:
    narrow, wide = _PARSER.SubPattern(_PARSER.State(), list(items)).getwidth()
    return int(narrow), None if wide >= _PARSER.MAXREPEAT else int(wide)


def _sized(parts: list[_Part], low: int, high: int | None) -> list[_Part]:
    """With fewer repetitions, so that they come to no fewer characters than `low` and no more than `high`."""
    found = list(parts)
    if high is not None:
        left = high - sum(part.least * (high + 1 if part.wide is None else part.wide) for part in parts)
        if left < 0:
            raise PatternError(f"a pattern has no texts that a grammar can keep to {high} characters (maxLength)")
        found = [part._replace(most=part.least) for part in parts]
        may_grow = [(_room(part, left), i) for i, part in enumerate(parts) if part.wide]
        for n, (room, i) in enumerate(sorted(may_grow)):  # an equal share each; what the smaller leave, the larger get
            more = min(room, left // (len(may_grow) - n)) // (parts[i].wide or 1)
            found[i] = parts[i]._replace(most=parts[i].least + more)
            left -= more * (parts[i].wide or 1)
    missing = low - sum(part.least * part.narrow for part in found)
    for i, part in reversed(list(enumerate(found))):
        if missing > 0 and part.narrow:
            least = part.least - -missing // part.narrow
            found[i] = part._replace(least=least if part.most is None else min(least, part.most))
            missing -= (found[i].least - part.least) * part.narrow
    if missing > 0:
        raise PatternError(f"a pattern has no texts that a grammar can give {low} characters (minLength)")
    return found


def _room(part: _Part, left: int) -> int:
    """Characters that a part's repetitions may add."""
    return left if part.most is None else (part.most - part.least) * (part.wide or 0)


def _sequence(items: Iterable[Any]) -> str:
    return " ".join(filter(None, map(_item, items)))


def _item(item: Any) -> str:
    kind, value = str(item[0]), item[1]
    match kind:
        case "LITERAL":
            return literal(json.dumps(chr(value), ensure_ascii=False)[1:-1])
        case "NOT_LITERAL":
            return _set([(value, value)], negated=True)
        case "ANY":
            return f"[^{_CONTROLS}]"
        case "IN":
            return _class(value)
        case "BRANCH":
            return f"({' | '.join(_sequence(each) or _EMPTY for each in value[1])})"
        case "SUBPATTERN" if not value[1] and not value[2]:
            return f"({_sequence(value[3]) or _EMPTY})"
        case _ if kind in _REPEATS:
            return _repeated(f"({_sequence(value[2]) or _EMPTY})", int(value[0]), _most(value[1]))
    raise PatternError(f"a pattern has {kind.lower().replace('_', ' ')}, which no grammar can follow")


_EMPTY: Final = '""'
_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


def _most(high: Any) -> int | None:
    return None if high is _PARSER.MAXREPEAT else int(high)


def _repeated(inner: str, low: int, high: int | None) -> str:
    if high == 0:
        return ""
    return inner + {(1, 1): "", (0, None): "*", (1, None): "+", (0, 1): "?"}.get(
        (low, high), f"{{{low},{'' if high is None else high}}}"
    )


def _class(parts: Sequence[Any]) -> str:
    ranges: list[tuple[int, int]] = []
    negated = False
    for part in parts:
        kind, value = str(part[0]), part[1]
        if kind == "NEGATE":
            negated = True
        elif kind == "LITERAL":
            ranges.append((value, value))
        elif kind == "RANGE":
            ranges.append(value)
        elif kind == "CATEGORY" and str(value) in _CATEGORIES:
            ranges += _CATEGORIES[str(value)]
        elif kind == "CATEGORY" and str(value).replace("NOT_", "") in _CATEGORIES:
            ranges += _others(_CATEGORIES[str(value).replace("NOT_", "")])
        else:
            raise PatternError(f"a pattern has {kind.lower()} {value} in a set, which no grammar can follow")
    return _set(ranges, negated=negated)


def _set(ranges: Ranges, *, negated: bool) -> str:
    """Characters as they stand, and by their escapes where they have one."""
    allowed = _others(ranges) if negated else ranges
    plain = _without(allowed, [(0, 31), (34, 34), (92, 92), (127, 127)])
    escaped = [c for c in _ESCAPED if not negated and any(low <= ord(c) <= high for low, high in allowed)]
    if negated:
        escaped = [c for c in '"\\' if any(low <= ord(c) <= high for low, high in allowed)]
    ways = [characters(plain)] if plain else []
    ways += [literal(json.dumps(c)[1:-1]) for c in escaped]
    if not ways:
        raise PatternError("a pattern has a set of no characters")
    return ways[0] if len(ways) == 1 else f"({' | '.join(ways)})"


def _others(ranges: Ranges) -> list[tuple[int, int]]:
    return _without([(0, _MOST)], ranges)


def _without(ranges: Ranges, excluded: Ranges) -> list[tuple[int, int]]:
    """What of the ranges is in none of the excluded ones."""
    found = list(ranges)
    for low, high in excluded:
        found = [
            part
            for first, last in found
            for part in ((first, min(last, low - 1)), (max(first, high + 1), last))
            if part[0] <= part[1]
        ]
    return found
