"""How far is long work? A line that is rewritten on a terminal, a line now and then elsewhere.

Everything goes to stderr, and nothing before two seconds are over: what is quick says nothing.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self, TextIO, TypeVar

PATIENCE_S: Final = 2.0
REWRITE_S: Final = 0.2  # on a terminal
REPEAT_S: Final = 15.0  # elsewhere: a log is to be read
T = TypeVar("T")


class Steps:
    """Counts what is done: `with Steps("reading", total=12) as steps`, and `steps.advance()` after each.

    Args:
        what: what is being done, a few words.
        total: how many steps there are; 0 where nobody knows.
        unit: of what, in the plural.
        ticks: said while a step lasts, too: for steps that take long by themselves.
        stream: where it is said (stderr).
        clock: seconds.
    """

    def __init__(
        self,
        what: str,
        *,
        total: int = 0,
        unit: str = "files",
        ticks: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.done = 0
        self._stream = stream or sys.stderr
        self._clock = clock
        self._rewrites = self._stream.isatty()
        self._began = clock()
        self._due = self._began + PATIENCE_S
        self._now = ""
        self._shown = False
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True) if ticks else None

    def advance(self, n: int = 1, now: str = "") -> None:
        """`n` more steps are done; `now` names what comes next."""
        with self._lock:
            self.done += n
            self._now = now
            self._say()

    def _say(self) -> None:
        """Say how far it is, if it is time to."""
        at = self._clock()
        if at < self._due:
            return
        self._due = at + (REWRITE_S if self._rewrites else REPEAT_S)
        self._shown = True
        line = self._line(at - self._began)
        self._stream.write(f"\r\x1b[K{line}" if self._rewrites else f"{line}\n")
        self._stream.flush()

    def _tick(self) -> None:
        while not self._over.wait(REWRITE_S):
            with self._lock:
                self._say()

    def over(self, items: Sequence[T] | Iterable[T]) -> Iterator[T]:
        """The items, one step each."""
        for item in items:
            yield item
            self.advance()

    def __enter__(self) -> Self:
        if self._ticker is not None:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._shown and self._rewrites:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, elapsed_s: float) -> str:
        of = f" of {self.total:,}" if self.total else ""
        done = f"{self.done:,}{of} {self.unit}, " if self.total or self.done else ""
        left_s = elapsed_s / self.done * (self.total - self.done) if 0 < self.done <= self.total else 0.0
        left = f", about {_duration(left_s)} left" if left_s else ""
        return f"{self.what}: {done}{_duration(elapsed_s)}{left}{f': {self._now}' if self._now else ''}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
