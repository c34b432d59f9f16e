"""The console script, and `python -m ggufphys`.

Hardly anything is imported here: Ctrl-C may come while the rest still is.
"""

import gc
import sys


def main() -> int:
    """`ggufphys.cli.process`, which Ctrl-C ends without a traceback, from its first import to the interpreter's end."""
    code = 130  # ggufphys.cli.INTERRUPTED, if it comes before that is there
    gc.disable()  # what is imported stays; `process` says how long
    try:
        from ggufphys.interrupts import come_again

        sys.unraisablehook = come_again
        from ggufphys.cli import interrupted, process

        try:
            code = process()
        except KeyboardInterrupt as error:
            code = interrupted(error)
        if signal := sys.modules.get("signal"):  # there are threads or children, for which the interpreter waits
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        pass
    return code


if __name__ == "__main__":
    sys.exit(main())
