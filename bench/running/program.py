"""What becomes of the errors of `python -m bench.NAME`: one line and an exit code, as of the console script's."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ggufphys.errors import GGUFPhysError


def existing_file(text: str) -> Path:
    """An argument that names a file which is there; children that are to open it would each say so in their own way.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: {'a directory' if path.is_dir() else 'no such file'}")
    return path


def existing_folder(text: str) -> Path:
    """An argument that names a folder which is there.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {'not a folder' if path.exists() else 'no such folder'}")
    return path


def existing_checkout(text: str) -> Path:
    """An argument that names another checkout of this project: Python would take this one's packages without a word.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    folder = existing_folder(text)
    if not (folder / "ggufphys" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text}: no checkout of ggufphys: it has no ggufphys/__init__.py")
    return folder


def existing_program(text: str) -> Path:
    """An argument that names a program which can be run, by its path or as a shell finds it.

    So that it is asked for first, not behind minutes of measuring.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    found = shutil.which(text)
    if found is None:
        path = Path(text)
        why = "a directory" if path.is_dir() else "not executable" if path.exists() else "no such program"
        raise argparse.ArgumentTypeError(f"{text}: {why}")
    return Path(found)


def numbers(text: str) -> list[int]:
    """`1,8,32`; empty: none. Raises ValueError, which argparse tells."""
    return [int(n) for n in text.split(",") if n]


def run_program(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's main function and end the process with its exit code."""
    spec = sys.modules["__main__"].__spec__
    name = f"python -m {spec.name.removesuffix('.__main__')}" if spec else sys.argv[0]
    with suppress(ImportError):  # of another checkout, which lacks it (`against`)
        from ggufphys.interrupts import end_by_signals

        end_by_signals()
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)  # the reader has seen enough; the interpreter would try to write once more, and say so
    except KeyboardInterrupt as error:
        from ggufphys.cli import interrupted  # here and below: another checkout's may lack it (`against`)

        code = interrupted(error, name)
    except (GGUFPhysError, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
        from ggufphys.cli import exit_code, message

        print(f"{name}: error: {message(error)}", file=sys.stderr)
        code = exit_code(error)
    sys.exit(code)
