r"""Into which pieces is a text cut before its bytes are merged? By regular expressions, one after the other.

`re` has no \p{L}. As llama.cpp does, every character beyond ASCII is first replaced by one that stands for its class,
and \p{L} becomes a set of ASCII letters and that character; a text keeps its length, so the cuts hold for the original.
Characters newer than Python's own table of Unicode (unicodedata.unidata_version) count as unassigned.

Source: llama.cpp 0c1e570 src/unicode.cpp, unicode_regex_split, unicode_regex_split_stl.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Final

SPACES: Final = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}
# Blocks of Chinese characters: Unified Ideographs, extensions A to F, compatibility forms
HAN: Final = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2CEB0, 0x2EBEF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip

# Characters of private use that stand for classes: a text's own ones become _OTHER
_OTHER, _N, _L, _P, _M, _S, _HAN = map(chr, range(0xE000, 0xE007))
_STANDS_FOR: Final = {"N": _N, "L": _L, "P": _P, "M": _M, "S": _S}  # by the first letter of the general category
_SETS: Final = {
    "N": f"0-9{_N}",
    "L": f"A-Za-z{_L}{_HAN}",
    "P": rf"!-#%-*,\-./:;?@\[\\\]_{{}}{_P}",
    "M": _M,
    "S": rf"$+<=>\^`|~{_S}",
    "Han": _HAN,
}
_SETS.update(dict.fromkeys(("Lu", "Ll", "Lt", "Lm", "Lo"), _SETS["L"]))  # llama.cpp does not tell them apart


class _Plain(dict[int, int]):
    r"""For `str.translate`: spaces beyond ASCII become a vertical tab, which \s matches in ASCII mode."""

    def __missing__(self, code: int) -> int:
        found = self[code] = ord("\v") if code > 127 and chr(code) in SPACES else code
        return found


class _Classes(dict[int, int]):
    """For `str.translate`: characters beyond ASCII become what stands for their class."""

    def __missing__(self, code: int) -> int:
        found = self[code] = code if code < 128 else ord(_class_of(chr(code)))
        return found


def _class_of(character: str) -> str:
    if character in SPACES:
        return "\v"
    found = _STANDS_FOR.get(unicodedata.category(character)[0], _OTHER)
    is_han = found == _L and any(first <= ord(character) <= last for first, last in HAN)
    return _HAN if is_han else found


_PLAIN: Final = _Plain()
_CLASSES: Final = _Classes()


@dataclass(frozen=True, slots=True)
class Cutter:
    """A compiled expression; `by_class` when it is to be matched against the text's classes."""

    pattern: re.Pattern[str]
    by_class: bool


@cache
def compiled(expression: str) -> Cutter:
    r"""Compile an expression with \p{..} in it, inside of sets and outside."""
    inside = by_class = False

    def replace(found: re.Match[str]) -> str:
        nonlocal inside, by_class
        if found["name"]:
            by_class = True
            members = _SETS[found["name"]]
            return members if inside else f"[{members}]"
        if found[0] in "[]":
            inside = found[0] == "["
        return found[0]

    translated = re.sub(r"\\p\{(?P<name>\w+)\}|\\.|\[|\]", replace, expression, flags=re.DOTALL)
    return Cutter(re.compile(translated, re.ASCII), by_class)


def split(text: str, expressions: Sequence[str]) -> list[str]:
    """The pieces of a text, all of it: what an expression does not match is a piece as well."""
    forms = {True: text.translate(_CLASSES), False: text.translate(_PLAIN)}
    bounds = [0, len(text)]
    for expression in expressions:
        cutter = compiled(expression)
        bounds = [0, *_cuts(cutter.pattern, forms[cutter.by_class], bounds)]
    return [text[start:end] for start, end in pairwise(bounds)]


def _cuts(pattern: re.Pattern[str], text: str, bounds: Sequence[int]) -> Iterator[int]:
    """Where pieces end; an expression sees no further than the piece that it cuts."""
    for start, end in pairwise(bounds):
        last = start
        for match in pattern.finditer(text, start, end):
            for cut in match.span():
                if cut > last:
                    yield cut
                    last = cut
        if end > last:
            yield end
