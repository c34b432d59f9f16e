"""When is it time to stop? The first SIGINT or SIGTERM says so; the second means at once. SIGHUP: read files again."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Catches the signals in a `with`, which must be in the main thread. `received` is set by the first one.

    The second ends the process without unwinding (`quit_now` gets the exit code, 128 + the signal): a thread inside
    llama_decode cannot be asked to end.
    """

    def __init__(self, quit_now: Callable[[int], object] = os._exit) -> None:
        self.received = threading.Event()
        self.hung_up = threading.Event()  # whoever has read the files again clears it
        self._quit_now = quit_now
        self._before: dict[int, Any] = {}

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self.hung_up.set()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received.is_set():
            self._quit_now(128 + number)
        self.received.set()

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        if hasattr(signal, "SIGHUP"):
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
