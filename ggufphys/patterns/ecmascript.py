r"""Does a pattern match a tensor's name, as llama.cpp's std::regex reads it?

--override-tensor and --tensor-type are searched in names by std::regex, whose grammar is a modified ECMAScript: POSIX
classes are known, Python's `(?i)`, `(?P<name>...)` and `{,n}` are refused, `\A` is the letter A, `$` the very end.
A pattern is read as libstdc++ reads it, the library of most builds, and written out for Python's `re`: every bracket
and class becomes the set of bytes it stands for, every repetition a group of its own.

Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, create_tensor; src/llama-quant.cpp, llama_model_quantize_impl;
C++ [re.grammar], ECMA-262 (3rd edition) 15.10.1.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Final, NoReturn

from ggufphys.patterns.posix_names import CHARACTERS, CLASSES

_STATES: Final = 100_000 - 5  # libstdc++'s limit to what repetitions multiply out to, less the ends of every pattern
_DEEPEST: Final = 100  # groups in groups: more than anybody writes, less than Python's stack holds
_CONTROLS: Final = {"0": 0, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_ANY: Final = frozenset(range(256)) - {10, 13}


@cache
def searcher(pattern: str) -> Callable[[str], bool]:
    r"""A function that says whether `pattern` is found in a name.

    >>> searcher(r"blk\.[[:digit:]]+\.ffn")("blk.12.ffn_up.weight")
    True

    Raises:
        ValueError: std::regex refuses the pattern; the message says what it is and where.
    """
    compiled = re.compile(_Reader(pattern).read().encode("latin-1"))
    return lambda name: compiled.search(_bytes(name).encode("latin-1")) is not None


def _bytes(text: str) -> str:
    """UTF-8 as characters of a byte each, which is what std::regex sees."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


class _Reader:
    """A pattern, read once from left to right; methods return Python's pattern and how many states it takes."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.text = _bytes(pattern)
        self.at = 0
        self.n_groups = 0
        self.open: list[int] = []
        self.depth = 0

    def read(self) -> str:
        """The whole pattern, translated."""
        found, _ = self._alternatives()
        if self.at < len(self.text):
            self._refuse("')' without '('" if self._next == ")" else f"nothing to repeat before {self._next!r}")
        return found

    @property
    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _takes(self, word: str) -> bool:
        if not self.text.startswith(word, self.at):
            return False
        self.at += len(word)
        return True

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(
            f"{self.pattern!r} is not a regular expression that std::regex (ECMAScript) takes: {why}, "
            f"at character {min(self.at, len(self.text)) + 1}"
        )

    def _alternatives(self) -> tuple[str, int]:
        self.depth += 1
        if self.depth > _DEEPEST:
            self._refuse(f"groups are nested more than {_DEEPEST} deep, which is not followed here")
        parts, n_states = [], 0
        while True:
            terms = []
            while (term := self._term()) is not None:
                terms.append(term[0])
                n_states += term[1]
            parts.append("".join(terms))
            if not self._takes("|"):
                break
            n_states += 3
        self.depth -= 1
        return "|".join(parts), n_states

    def _term(self) -> tuple[str, int] | None:
        """An assertion, or an atom with its repetitions; None where neither begins."""
        for word, meaning in (("^", r"\A"), ("$", r"\Z"), (r"\b", r"\b"), (r"\B", r"\B")):
            if self._takes(word):
                return meaning, 1
        for word in ("(?=", "(?!"):
            if self._takes(word):
                return self._group(word)
        atom = self._atom()
        if atom is None:
            return None
        found, n_states = atom
        while (repeated := self._repetition(n_states)) is not None:
            found, n_states = f"(?:{found}){repeated[0]}", repeated[1]
            if n_states > _STATES:
                self._refuse("too many repetitions")
        return found, n_states

    def _repetition(self, n_states: int) -> tuple[str, int] | None:
        for mark, more in (("*", 1), ("+", 1), ("?", 2)):
            if self._takes(mark):
                return mark + ("?" if self._takes("?") else ""), n_states + more
        if not self._takes("{"):
            return None
        low = self._digits()
        if not low:
            self._refuse("expected a number behind '{'")
        high = (self._digits() or "inf") if self._takes(",") else low
        if not self._takes("}"):
            self._refuse("expected '}' behind the numbers")
        most = int(low) + 1 if high == "inf" else int(high)
        if most < int(low):
            self._refuse(f"a range from {low} to {high}")
        lazy = "?" if self._takes("?") else ""
        n_states = 1 + n_states * (int(low) + 1) + (n_states + 1) * (most - int(low))
        return f"{{{int(low)},{'' if high == 'inf' else int(high)}}}{lazy}", n_states

    def _digits(self) -> str:
        start = self.at
        while self._next.isascii() and self._next.isdigit():
            self.at += 1
        if self.at - start > 9:  # no count that ends well
            self._refuse("too many repetitions")
        return self.text[start : self.at]

    def _atom(self) -> tuple[str, int] | None:
        if self._takes("(?:"):
            return self._group("(?:")
        if self._takes("(?"):
            self._refuse("behind '(?' only ':', '=' and '!' have a meaning")
        if self._takes("("):
            self.n_groups += 1
            self.open.append(self.n_groups)
            found = self._group("(")
            self.open.pop()
            return found
        if self._takes("["):
            return _one_of(self._bracket()), 1
        if self._takes("."):
            return _one_of(_ANY), 1
        if self._takes("\\"):
            return self._escaped()
        if not self._next or self._next in "*+?{|)":
            return None
        self.at += 1
        return _one_of({ord(self.text[self.at - 1])}), 1

    def _group(self, opening: str) -> tuple[str, int]:
        found, n_states = self._alternatives()
        if not self._takes(")"):
            self._refuse(f"nothing to repeat before {self._next!r}" if self._next else "'(' without ')'")
        return f"{opening}{found})", n_states + (3 if opening == "(" else 2)

    def _escaped(self) -> tuple[str, int]:
        if self._next in CLASSES and self._next.lower() in ("d", "s", "w"):
            self.at += 1
            return _one_of(CLASSES[self.text[self.at - 1]]), 1
        if self._next.isascii() and self._next.isdigit() and self._next != "0":
            number = int(self._digits())
            if number > self.n_groups or number in self.open:
                self._refuse(f"\\{number} refers to a group that is not closed before it")
            return f"(?:\\{number})" if number < 100 else self._refuse("more than 99 groups are not followed here"), 1
        return _one_of({self._escaped_character()}), 1

    def _escaped_character(self) -> int:
        """The byte that an escape stands for, outside of brackets and in them."""
        letter = self._next
        self.at += 1
        if not letter:
            self._refuse("nothing behind '\\'")
        if letter in "xu":
            n_digits = 2 if letter == "x" else 4
            digits = self.text[self.at : self.at + n_digits]
            if not re.fullmatch(rf"[0-9a-fA-F]{{{n_digits}}}", digits):
                self._refuse(f"expected {n_digits} hexadecimal digits behind '\\{letter}'")
            self.at += n_digits
            return int(digits, 16) & 0xFF
        if letter == "c":
            if not self._next:
                self._refuse("nothing behind '\\c'")
            self.at += 1
            return ord(self.text[self.at - 1])
        return _CONTROLS.get(letter, ord(letter))

    def _bracket(self) -> frozenset[int]:
        """The bytes that a bracket stands for; it ends at the first `]`, which may stand at its beginning."""
        negated = self._takes("^")
        found: set[int] = set()
        last: int | str = ""  # what a range would begin with: a character, "class", or nothing
        while not self._takes("]"):
            if self._takes("-"):
                if self._next == "]" or last == "":
                    last = ord("-")
                    found.add(last)
                    continue
                if isinstance(last, str):
                    self._refuse("a range cannot begin with a class")
                end = self._range_end()
                if _signed(end) < _signed(last):
                    self._refuse(f"a range from {chr(last)!r} to {chr(end)!r}")
                found.update(value & 0xFF for value in range(_signed(last), _signed(end) + 1))
                last = ""
                continue
            member = self._member()
            if isinstance(member, frozenset):
                found |= member
                last = "class"
            else:
                found.add(member)
                last = member
        return frozenset(range(256)) - found if negated else frozenset(found)

    def _range_end(self) -> int:
        if self._takes("-"):
            return ord("-")
        named = self.text.startswith(("[.", "[=", "[:"), self.at)
        end = frozenset[int]() if named else self._member()
        if isinstance(end, frozenset):
            self._refuse("a range cannot end with a class")
        return end

    def _member(self) -> int | frozenset[int]:
        """A character of a bracket, or a class."""
        if not self._next:
            self._refuse("'[' without ']'")
        for kind in ".=:":
            if self._takes(f"[{kind}"):
                return self._named(kind)
        if self._takes("\\"):
            if self._next and self._next in "dDsSwW":
                self.at += 1
                return CLASSES[self.text[self.at - 1]]
            if self._takes("b"):
                return 8
            if self._next and self._next in "B123456789":
                self._refuse(f"'\\{self._next}' has no meaning in brackets")
            return self._escaped_character()
        self.at += 1
        return ord(self.text[self.at - 1])

    def _named(self, kind: str) -> int | frozenset[int]:
        """[:class:], [.character.] or [=character=]."""
        end = self.text.find(f"{kind}]", self.at)
        name = self.text[self.at : max(end, self.at)]
        if kind == ":":
            if name.lower() not in CLASSES:
                self._refuse(f"{name!r} is not a class of characters")
            self.at = end + 2
            return CLASSES[name.lower()]
        if name not in CHARACTERS:
            self._refuse(f"{name!r} is not the name of a character")
        self.at = end + 2
        value = CHARACTERS[name]
        if kind == ".":
            return value
        return frozenset({value, ord(chr(value).lower()), ord(chr(value).upper())})


def _signed(byte: int) -> int:
    """As C's char has it."""
    return byte - 256 if byte > 127 else byte


def _one_of(values: frozenset[int] | set[int]) -> str:
    """Python's pattern for one byte of these."""
    if not values:
        return "(?!)"
    return "[" + "".join(f"\\x{value:02x}" for value in sorted(values)) + "]"


__all__ = ["searcher"]
