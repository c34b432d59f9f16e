"""Which build does somebody mean? A number, `latest`, `pinned`, or a program or library that is asked in a child."""

import os
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ggufphys.builds.moves import LATEST, PINNED
from ggufphys.builds.said import NO_NUMBERS, build_of, build_of_commit, build_said

_NUMBER: Final = re.compile(r"b?(\d{1,7})(?:-[0-9a-f]{7,40})?")  # 11312, b11312, b11312-0c1e570
_COMMIT: Final = re.compile(r"[0-9a-f]{7,40}")
_ASK_LIBRARY: Final = """
import ctypes, sys
for path in sys.argv[1:]:
    try:
        commit = ctypes.CDLL(path).ggml_commit
    except AttributeError:
        continue
    except OSError as error:
        print(error, file=sys.stderr)
        continue
    commit.restype = ctypes.c_char_p
    print(commit().decode())
    break
"""
_TIMEOUT_S: Final = 30


def build_named(text: str) -> int:
    """The build's number.

    Raises:
        ValueError: it is none of these, or a program that does not say which build it is.
    """
    if text == "latest":
        return LATEST
    if text == "pinned":
        return PINNED
    if match := _NUMBER.fullmatch(text):
        if int(match[1]) in NO_NUMBERS:
            raise ValueError(
                f"--llama-build {text}: 0 and 1 are what packages print that do not know their build; expected the "
                f"number of the llama.cpp that they were built from, such as b{LATEST}"
            )
        return int(match[1])
    path = Path(os.path.expanduser(text)).absolute()  # noqa: PTH111  # a bare name would be looked for elsewhere
    if not path.is_file():
        raise ValueError(
            f"--llama-build {text}: expected a build such as b{LATEST}, latest, pinned, or the path of a llama-server "
            "or libllama"
        )
    is_library = ".so" in path.name or path.suffix in (".dylib", ".dll")
    return _of_library(path) if is_library else _of_program(path)


def _of_program(path: Path) -> int:
    answer = _run([os.fspath(path), "--version"], path)
    build = build_of(build_said(answer))
    if build is None:
        raise ValueError(f"{path} --version does not say which build it is: {answer.strip()[:200]!r} ({_HELP})")
    return build


def _of_library(path: Path) -> int:
    beside = [p for p in sorted(path.parent.glob("*ggml-base*")) if p.is_file()]
    paths = [os.fspath(p.resolve()) for p in (*beside, path)]  # a name without a folder is looked up elsewhere
    answer = _run([sys.executable, "-c", _ASK_LIBRARY, *paths], path).strip()
    build = build_of_commit(answer)
    if build is None:
        if _COMMIT.fullmatch(answer):
            said = f"is of commit {answer!r}, which is none of the recorded builds"
        else:
            said = f"cannot be loaded: {answer.splitlines()[0][:300]}" if answer else "does not say its commit"
        raise ValueError(f"{path} {said} ({_HELP})")
    return build


_HELP: Final = f"say its number yourself: --llama-build b{LATEST}"


def _run(command: list[str], path: Path) -> str:
    try:
        answer = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{path} cannot be asked for its build: {error} ({_HELP})") from error
    return answer.stdout + ("" if answer.stdout.strip() else answer.stderr)


def installed_build() -> int:
    """The build of the llama.cpp that llama-cpp-python has here; the pinned one where that is not known."""
    return _installed() or PINNED


def installed_words() -> str:
    """The installed build in words, which say so where it is not known."""
    build = _installed()
    return f"b{build}" if build else f"whose build is not known and taken for b{PINNED}"


@cache
def _installed() -> int | None:
    package = find_spec("llama_cpp")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        for library in sorted(Path(folder, "lib").glob("*llama.*")):
            try:
                return _of_library(library)
            except ValueError:
                break
    return None
