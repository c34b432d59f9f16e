"""The console script, and `python -m ggufphys`.

Hardly anything is imported here: Ctrl-C may come while the rest still is.
"""

import gc
import sys


def main() -> int:
    """`ggufphys.cli.process`, which Ctrl-C ends without a traceback, from its first import to the interpreter's end."""
    code = 130  # ggufphys.cli.INTERRUPTED, if it comes before that is there
    gc.disable()  # what is imported stays; `process` says how long
    sys.unraisablehook = _come_again
    try:
        from ggufphys.cli import interrupted, process

        try:
            code = process()
        except KeyboardInterrupt:
            code = interrupted()
        if signal := sys.modules.get("signal"):  # there are threads or children, for which the interpreter waits
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        pass
    return code


def _come_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C that came where Python drops exceptions, in a callback of its import lock say, comes once more.

    By another thread, which has its turn when the callback is over: from here it would be dropped again.
    """
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    import _thread  # built in

    _thread.start_new_thread(_thread.interrupt_main, ())


if __name__ == "__main__":
    sys.exit(main())
