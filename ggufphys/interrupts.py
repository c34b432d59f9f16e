"""Ctrl-C where Python by itself would print a traceback, or lose it; and other signals that end a process, like it.

Hardly anything is imported here: Ctrl-C may come while the rest still is.
"""

import os
import sys
from types import FrameType, TracebackType


class Ended(KeyboardInterrupt):
    """A signal ends this process. What removes half-written files and ends children for Ctrl-C does so for it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class CutShort(KeyboardInterrupt):
    """A mapped file lacks pages that are read: what it says is told, and no answer is given."""


def end_by_signals() -> None:
    """From now on SIGTERM and SIGHUP (the terminal is gone) raise `Ended`; the second ends the process at once.

    Python by itself would be gone before any of its `finally` is done. Signals that somebody ignores (nohup) or
    handles stay as they are.
    """
    import signal  # an answer of a few milliseconds has nothing to clean up

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    import signal

    signal.signal(number, signal.SIG_DFL)
    raise Ended(number)


def come_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C that came where Python drops exceptions, in a callback of llama.cpp or of the import lock, comes again.

    By another thread, which has its turn when the callback is over: from here it would be dropped again.
    """
    if isinstance(unraisable.exc_value, Ended):
        os.kill(os.getpid(), unraisable.exc_value.number)  # which ends it at once: see `_raise`
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    import _thread  # built in

    _thread.start_new_thread(_thread.interrupt_main, ())


def end_quietly() -> None:
    """Let Ctrl-C end this process without a traceback, from here to where its `main` takes care of that."""
    sys.unraisablehook = come_again
    sys.excepthook = _end


def _end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    os._exit(130)  # ggufphys.cli.INTERRUPTED
