"""Ctrl-C where Python by itself would print a traceback, or lose it.

Hardly anything is imported here: Ctrl-C may come while the rest still is.
"""

import os
import sys
from types import TracebackType


def come_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C that came where Python drops exceptions, in a callback of llama.cpp or of the import lock, comes again.

    By another thread, which has its turn when the callback is over: from here it would be dropped again.
    """
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
