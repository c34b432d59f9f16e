"""POSIX's names of characters and classes, as sets of bytes in the C locale. Data only.

Source: POSIX.1-2017, Base Definitions, 6.1 Portable Character Set, 7.3.1 LC_CTYPE.
"""

import string
from collections.abc import Mapping
from typing import Final

_CONTROLS: Final = (
    "NUL SOH STX ETX EOT ENQ ACK alert backspace tab newline vertical-tab form-feed carriage-return SO SI DLE DC1 DC2 "
    "DC3 DC4 NAK SYN ETB CAN EM SUB ESC IS4 IS3 IS2 IS1 space"
)
_MARKS: Final = (
    ("!", "exclamation-mark quotation-mark number-sign dollar-sign percent-sign ampersand apostrophe left-parenthesis "
     "right-parenthesis asterisk plus-sign comma hyphen period slash"),
    ("0", "zero one two three four five six seven eight nine"),
    (":", "colon semicolon less-than-sign equals-sign greater-than-sign question-mark commercial-at"),
    ("[", "left-square-bracket backslash right-square-bracket circumflex underscore grave-accent"),
    ("{", "left-curly-bracket vertical-line right-curly-bracket tilde DEL"),
)  # fmt: skip

CHARACTERS: Final[Mapping[str, int]] = {
    **{name: value for value, name in enumerate(_CONTROLS.split())},
    **{name: ord(first) + i for first, names in _MARKS for i, name in enumerate(names.split())},
    **{letter: ord(letter) for letter in string.ascii_letters},
}


def _of(characters: str) -> frozenset[int]:
    return frozenset(map(ord, characters))


_ALL: Final = frozenset(range(256))
_WORD: Final = _of(string.ascii_letters + string.digits + "_")

# d, s and w are std::regex's own; their capitals are for `\D`, `\S`, `\W`.
CLASSES: Final[Mapping[str, frozenset[int]]] = {
    "alnum": _of(string.ascii_letters + string.digits),
    "alpha": _of(string.ascii_letters),
    "blank": _of(" \t"),
    "cntrl": frozenset((*range(32), 127)),
    "digit": _of(string.digits),
    "graph": frozenset(range(33, 127)),
    "lower": _of(string.ascii_lowercase),
    "print": frozenset(range(32, 127)),
    "punct": _of(string.punctuation),
    "space": _of(" \t\n\r\v\f"),
    "upper": _of(string.ascii_uppercase),
    "xdigit": _of(string.hexdigits),
    "d": _of(string.digits),
    "D": _ALL - _of(string.digits),
    "s": _of(" \t\n\r\v\f"),
    "S": _ALL - _of(" \t\n\r\v\f"),
    "w": _WORD,
    "W": _ALL - _WORD,
}
