"""Where does the server write down what? Notes for the user, and a line for each request, as text or as JSON lines.

Notes go to stderr, and with --log-file to the file too, which may be renamed by logrotate under way. What is written of
a request: `requests_written.py`.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Final

NOTES: Final = logging.getLogger("server.notes")
ACCESS: Final = logging.getLogger("server.access")
_TEXT: Final = logging.Formatter("%(message)s")
_DATED: Final = logging.Formatter("%(asctime)s %(levelname)s %(message)s")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, message, and what else the record was given."""
        document: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


class _Stderr(logging.Handler):
    """Writes to what stderr is when it writes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


class _File(WatchedFileHandler):
    """A file that may be renamed; a line that it cannot take (full disk, no folder) is lost, told once."""

    told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, into a new file where the old one was moved away."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        """Not what logging does, a traceback for each line."""
        if not self.told:
            self.told = True
            sys.stderr.write(f"warning: {self.baseFilename}: {sys.exception()}; lines of the log are lost\n")

    def close(self) -> None:
        """What is left has no place to go, either."""
        with suppress(OSError):
            super().close()


def _silent(logger: logging.Logger) -> None:
    logger.propagate = False
    logger.setLevel(logging.INFO)


_silent(NOTES)
_silent(ACCESS)
_ON_STDERR: Final = _Stderr()
_ON_STDERR.setFormatter(_TEXT)
NOTES.addHandler(_ON_STDERR)


def warn(message: str) -> None:
    """A line that is not part of the output."""
    NOTES.warning(message)


def open_journal(*, file: Path | None, as_json: bool, access: bool) -> Callable[[], None]:
    """Write as was asked for; what it gives ends that.

    Raises:
        ValueError: the file cannot be written.
    """
    undo: list[Callable[[], None]] = []

    def add(logger: logging.Logger, handler: logging.Handler) -> None:
        logger.addHandler(handler)
        undo.append(lambda: logger.removeHandler(handler))

    if as_json:
        _ON_STDERR.setFormatter(JsonLines())
        undo.append(lambda: _ON_STDERR.setFormatter(_TEXT))
    if access:
        add(ACCESS, _ON_STDERR)
    if file is not None:
        try:
            handler = _File(file, encoding="utf-8")
        except OSError as error:
            raise ValueError(f"--log-file {file}: {error.strerror or error}; name a file that can be written") from None
        handler.setFormatter(JsonLines() if as_json else _DATED)
        undo.append(handler.close)
        for logger in (NOTES, ACCESS, logging.getLogger()):
            add(logger, handler)

    def close() -> None:
        for each in reversed(undo):
            each()

    return close


def say(message: str) -> None:
    """A line for the user, at once: it may be a program that waits for the address."""
    sys.stdout.write(message + "\n")
    sys.stdout.flush()
