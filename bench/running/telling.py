"""What measuring child processes tell their parent: JSON on stdout, an error too; and what they said when they fail."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final, NoReturn

from ggufphys.machine.children import describe

LAST: Final = 2_000  # bytes of what a child wrote to stderr, and
LINES: Final = 5  # lines of those: the error, and what llama.cpp said before it


def emit(**event: Any) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def answer(command: Sequence[str], variables: Mapping[str, str]) -> Any:
    """What a child prints: one JSON document.

    Raises:
        RuntimeError: it failed; with what it said last.
    """
    done = subprocess.run(command, env=variables, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the measuring process ended with {describe(done.returncode)}{quoted(done.stderr)}")
    return json.loads(done.stdout)


def quoted(said: bytes) -> str:
    """The last lines of what a child wrote to stderr, to go behind a sentence; nothing if there are none."""
    lines = [line for line in said[-LAST:].decode("utf-8", "replace").splitlines() if line.strip()]
    return "".join(f"\n  {line}" for line in ("it said last:", *lines[-LINES:])) if lines else ""


def said_in(stderr: IO[bytes]) -> str:
    """The last lines of a file that is a child's stderr, to go behind a sentence; nothing if there are none."""
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, stderr.tell() - LAST))
    return quoted(stderr.read())


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
