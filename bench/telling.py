"""What measuring child processes tell their parent: a JSON object a line on stdout, an error too."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn


def emit(**event: Any) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def run_telling(main: Callable[[], int]) -> NoReturn:
    """Run a child's main function and end the process; whatever fails, the parent hears it in one line.

    A parent that is gone hears nothing, and nobody is told.
    """
    try:
        sys.exit(main())
    except BrokenPipeError:
        os._exit(1)  # the interpreter would try to write once more, and say so
    except Exception as error:  # it may be anything
        emit(error=f"{type(error).__name__}: {error}", kind=type(error).__name__, message=str(error))
        sys.exit(1)
