"""How do bytes, counts and rates become text, and text become bytes? The only place that rounds.

And what becomes of strangers' text: names in files may hold what a terminal takes for commands.
"""

import operator
import os
import re
from collections.abc import Iterable
from typing import Any, Final, SupportsIndex

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_FACTORS = {
    "": 1, "b": 1,
    "k": 1 << 10, "kib": 1 << 10, "kb": 1000,
    "m": 1 << 20, "mib": 1 << 20, "mb": 1000**2,
    "g": 1 << 30, "gib": 1 << 30, "gb": 1000**3,
    "t": 1 << 40, "tib": 1 << 40, "tb": 1000**4,
    "p": 1 << 50, "pib": 1 << 50, "pb": 1000**5,
    "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40,
}  # fmt: skip
# Control characters but for the line's end and the tab, marks that turn the direction of text, halves of surrogates (in
# paths bytes that are not UTF-8).
_UNSEEN: Final = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_NOT_ASCII: Final = "[^\x00-\x7f]"
MAX_TEXT_BYTES: Final = 256 << 20
MAX_BYTES: Final = (1 << 63) - 1
MAX_LINE: Final = 1000  # characters of a message's line
MAX_LINES: Final = 20  # of a message
_SIZE: Final = r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*"


def format_bytes(nbytes: int) -> str:
    """Bytes in the largest binary unit that leaves at least one whole: `4368439584` gives `4.07 GiB`."""
    if abs(nbytes) < 1024:
        return f"{nbytes} B"
    value = float(nbytes)
    unit = 0
    while abs(value) >= 1024 and unit < len(_BINARY) - 1:
        value /= 1024
        unit += 1
    return f"{value:.2f} {_BINARY[unit]}"


def format_mib(nbytes: int) -> str:
    """Bytes as MiB with two decimals, the precision that llama.cpp's log prints."""
    return f"{nbytes / (1 << 20):,.2f}"


def format_count(count: int) -> str:
    """A count with a decimal prefix: `7241732096` gives `7.24 B`, as model sizes are named."""
    for factor, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= factor:
            return f"{count / factor:.2f} {suffix}"
    return str(count)


def counted(count: int, thing: str) -> str:
    """How many there are of what: `1 file`, `2 files`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def format_giga(count: float) -> str:
    """A count in thousands of millions with three significant digits at least: FLOPs as GFLOP."""
    value = count / 1e9
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def format_ratio(value: float) -> str:
    """A ratio with two decimals: FLOPs a byte."""
    return f"{value:,.2f}"


def shown(text: str) -> str:
    r"""The text with `\u001b` for an escape character, so that names don't command a terminal; JSON means the same."""
    if text.isascii() and text.replace("\n", " ").replace("\t", " ").isprintable():  # as nearly always
        return text
    return re.sub(_UNSEEN, lambda match: f"\\u{ord(match[0]):04x}", text)


def in_ascii(text: str) -> str:
    r"""The text with `\u00e9` for an é, where a terminal or a file has no room for it; JSON means the same by that."""
    return re.sub(_NOT_ASCII, lambda match: re.sub("(....)", r"\\u\1", match[0].encode("utf-16-be").hex()), text)


def in_a_line(text: str) -> str:
    """A stranger's text where it stands in one line, among our own words."""
    return shown(text.replace("\n", "\\n").replace("\t", "\\t"))


def shortened(message: str) -> str:
    """A message that can be read: long lines and long lists of them are cut, and it says by how much."""
    lines = [
        line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}... ({len(line):,} characters)"
        for line in message.split("\n")
    ]
    more = len(lines) - MAX_LINES
    return "\n".join(lines if more <= 1 else [*lines[:MAX_LINES], f"  and {more:,} lines more"])


def read_text(path: "str | os.PathLike[str]") -> str:
    """The text of a file that somebody named, if it is text and not endless.

    Raises:
        ValueError: it is not UTF-8, or of a size that no record of ours has.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:  # noqa: PTH123  # at start-up
        data = file.read(MAX_TEXT_BYTES)
    if len(data) == MAX_TEXT_BYTES:
        raise ValueError(f"{path}: {MAX_TEXT_BYTES:,} bytes and more, expected a text")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start:,}), expected a text") from None


def parse_json(text: str | bytes) -> Any:
    """What a text of somebody else's says in JSON.

    Raises:
        ValueError: it is none, or nested too deeply to be read.
    """
    import json  # not at start-up

    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None


def parse_bytes(text: str) -> int:
    """`24GiB`, `24Gi`, `24G`, `512MiB`, `1.5gb` or plain bytes; `K M G T P` are binary, `KB MB GB TB PB` decimal.

    Raises:
        ValueError: the text is not a number followed by one of these units, or more than 64 bits count.
    """
    match = re.fullmatch(_SIZE, text)
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"not a size: {text!r} (expected a number and a unit, such as 24GiB, 512MiB or 8GB)")
    nbytes = float(match[1]) * factor
    if nbytes > MAX_BYTES:  # which is true of what no float holds, too
        raise ValueError(f"not a size: {text!r} (expected {format_bytes(MAX_BYTES)} at most)")
    return int(nbytes)


def parse_memory(text: str, flag: str) -> int:
    """A size of memory that there is, named behind `flag`: more than none, and with a unit where it is little.

    Raises:
        ValueError: see `parse_bytes`; none at all; or a number alone, as of GiB, which would be so many bytes.
    """
    try:
        nbytes = parse_bytes(text)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None
    if nbytes < 1 << 20 and (nbytes == 0 or text.strip().isdigit()):
        raise ValueError(f"{flag} {text}: that is {format_bytes(nbytes)}, expected a size such as 24GiB, 512MiB or 8GB")
    return nbytes


def whole_number(value: object, name: str) -> int:
    """The value as an int, if it is a whole number (numpy's too).

    Raises:
        TypeError: it is a text, a float, a bool or something else.
    """
    if type(value) is int:  # as nearly always, and much faster
        return value
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        return operator.index(value)
    raise TypeError(f"{name} is {value!r}, a {type(value).__name__}: expected a whole number, such as 8192")


def require_kind(value: object, kind: type, name: str, example: str) -> None:
    """Refuse what is not of this kind.

    Raises:
        TypeError: it is something else, such as a path where an open file is wanted.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}: expected a {kind.__name__}, such as {example}")


def truth(value: object, name: str) -> bool:
    """The value, if it is True or False.

    Raises:
        TypeError: it is something else, such as "off", which Python would take for true.
    """
    if isinstance(value, bool):
        return value
    raise TypeError(f"{name} is {value!r}, a {type(value).__name__}: expected True or False")


def elements(value: object, name: str, kinds: tuple[type, ...], example: str) -> tuple[Any, ...]:
    """The elements of a sequence, each of one of these kinds.

    Raises:
        TypeError: it is no sequence, a text, or has something else in it.
    """
    found = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else None
    if found is None or not all(isinstance(element, kinds) for element in found):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}: expected a tuple or list of such as {example}")
    return found
