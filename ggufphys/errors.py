"""The errors a caller may meet, and the exit code each one becomes on the command line.

GGUFPhysError
├── GGUFError            the file is not a readable GGUF                 exit 3
│   ├── TruncatedError   ... because it ends too early
│   ├── RefusedError     ... or llama.cpp would not load it (ggufphys.loads)
│   └── FetchError       ... because it is remote and cannot be fetched
├── UnsupportedError     readable, but we have no answer for it (yet)    exit 4
├── MissingExtraError    a subcommand's packages are not installed       exit 2
├── OutputError          a file that was asked for cannot be written      exit 1
└── (other rooms')       EngineError, DeriveError, ...                   exit 1

Parameters that llama.cpp would refuse raise ValueError with llama.cpp's reason (exit 2); OSError passes through
(exit 3).
"""

from collections.abc import Mapping
from typing import Final

USAGE: Final = 2  # the exit code of a command line that is none


class GGUFPhysError(Exception):
    """Base of everything ggufphys raises on purpose."""


class GGUFError(GGUFPhysError):
    """The file is not a GGUF that can be read: the message says what was found, where, and what was expected."""


class TruncatedError(GGUFError):
    """The file ends before its header does.

    `needed_bytes` is the smallest length at which reading could go on; a reader that fetches a file in pieces
    fetches at least that much and tries again. `metadata` are the keys that were read before the end.
    """

    def __init__(self, message: str, *, needed_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.metadata: Mapping[str, object] = {}


class FetchError(GGUFError):
    """A remote file cannot be fetched; the message names the address, what the server said, and what may help."""


class UnsupportedError(GGUFPhysError):
    """The file is readable, but the question has no answer here; the message names what is missing."""


class MissingExtraError(GGUFPhysError):
    """A package that an optional subcommand needs is not installed; the message names the extra to install."""


class OutputError(GGUFPhysError):
    """A file that was asked for cannot be written; the message says which, why, and what is left of it."""


def with_extra(extra: str) -> str:
    """How to install what is missing: there is no distribution on an index yet, so a clone or a wheel is named."""
    return f"install ggufphys with its extra {extra!r}: pip install '.[{extra}]' in a clone, or 'WHEEL[{extra}]'"
