"""What does llama.cpp say while it works? Its log, kept in lines so that errors can quote it and tools can parse it.

llama.cpp has one logger in the process, so there is one `LOG` here; `library.load_library` connects it.
"""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ggufphys.logs.lines import LoggedBuffer, logged_buffers

MAX_LINES: Final = 20_000  # a load writes some hundred lines; a server that runs for months must not keep them all
QUOTED_LINES: Final = 3


class Level(IntEnum):
    """ggml_log_level (llama.cpp 0c1e570 ggml/include/ggml.h); CONT goes on with the line before."""

    NONE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CONT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One whole line of llama.cpp's log, without its newline. `number` counts from the start of the process."""

    number: int
    level: Level
    text: str


class LogCapture:
    """Keeps the last lines; writes them to stderr as well when `verbose`. Safe to use from any thread."""

    def __init__(self, *, max_lines: int = MAX_LINES) -> None:
        self.verbose = False
        self._lines: deque[LogLine] = deque(maxlen=max_lines)
        self._count = 0
        self._open: tuple[Level, str] | None = None  # a line whose end has not come yet
        self._lock = threading.Lock()

    def receive(self, level: int, text: bytes | None, user_data: object = None) -> None:
        """Take a piece of the log: llama.cpp's callback, hence the unused third argument."""
        del user_data
        pieces = (text or b"").decode("utf-8", "replace").split("\n")
        with self._lock:
            for index, piece in enumerate(pieces):
                # Behind each newline a new line starts; the last piece stays open until its newline comes.
                self._append(Level(level) if 0 <= level <= Level.CONT else Level.INFO, piece)
                if index < len(pieces) - 1:
                    self._close_line()

    def _append(self, level: Level, piece: str) -> None:
        if not piece:
            return
        if self._open is None:
            self._open = (Level.INFO if level is Level.CONT else level, piece)
        elif level is Level.CONT:
            self._open = (self._open[0], self._open[1] + piece)
        else:
            self._close_line()  # a new message ends an unfinished line
            self._open = (level, piece)

    def _close_line(self) -> None:
        if self._open is None:
            return
        level, text = self._open
        self._open = None
        self._lines.append(LogLine(number=self._count, level=level, text=text))
        self._count += 1
        if self.verbose:
            sys.stderr.write(text + "\n")

    @property
    def mark(self) -> int:
        """A place in the log, for `since`: the number of the next line."""
        with self._lock:
            return self._count

    def since(self, mark: int) -> tuple[LogLine, ...]:
        """The lines kept from `mark` on."""
        with self._lock:
            return tuple(line for line in self._lines if line.number >= mark)

    def buffers(self, mark: int, end: int | None = None) -> tuple[LoggedBuffer, ...]:
        """The sizes of buffers that the lines from `mark` on tell, those from `end` on left out."""
        return logged_buffers(line.text for line in self.since(mark) if end is None or line.number < end)

    def quote(self, mark: int) -> str:
        """The last error lines from `mark` on (warnings when there are none), as a clause for an error message."""
        lines = self.since(mark)
        for level in (Level.ERROR, Level.WARN):
            said = list(_distinct(line.text.strip() for line in lines if line.level is level))
            if said:
                return "llama.cpp said: " + " | ".join(said[-QUOTED_LINES:])
        return "llama.cpp gave no reason"


def _distinct(texts: Iterator[str]) -> Iterator[str]:
    """Drop repetitions: llama.cpp reports one failure at several depths of its call stack."""
    return iter(dict.fromkeys(texts))


LOG: Final = LogCapture()
"""The process's log of llama.cpp; silent unless `LOG.verbose` is set."""
