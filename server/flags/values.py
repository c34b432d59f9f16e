"""What do values of our own flags mean? Types for argparse: what is none is an error that says what was expected."""

import argparse
from pathlib import Path
from typing import Final

from ggufphys.cli import message
from ggufphys.units import parse_bytes, read_text
from server.net.addresses import split
from server.template.chatml import CHATML

NAMED_TEMPLATES: Final = {"chatml": CHATML}


def size(text: str) -> int:
    """Bytes, from 24GiB and the like."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def names(text: str) -> tuple[str, ...]:
    """Names by commas."""
    return tuple(filter(None, map(str.strip, text.split(","))))


def hosts(text: str) -> str:
    """Addresses by commas."""
    try:
        return ",".join(split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def port(text: str) -> int:
    """A TCP port."""
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (expected 0 to 65535)")
    return int(text)


def amount(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def interval(text: str) -> int:
    """Seconds; -1 is never."""
    return -1 if text in ("-1", "0") else positive(text)


def prefix(text: str) -> str:
    """The beginning of a path, without the slash at its end."""
    if text and not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not the beginning of a path (expected /something)")
    return text.rstrip("/")


def template(text: str) -> str:
    """A Jinja template, or the name of one."""
    if "{" not in text and text not in NAMED_TEMPLATES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no template (expected Jinja, or {', '.join(NAMED_TEMPLATES)}; --chat-template-file reads one)"
        )
    return NAMED_TEMPLATES.get(text, text)


def template_file(text: str) -> str:
    """The text of a file."""
    try:
        return read_text(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(message(error)) from None
