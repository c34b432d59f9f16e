"""Another checkout beside this one, in one run: what has become faster? For benchmarks with `--against CHECKOUT`."""

import compileall
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parents[2]
ROOMS: Final = ("ggufphys", "refengine", "server", "bench")
# Where it is imported alone, it runs (a6c4835), or has a `main`.
_INSPECT: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); import ggufphys.__main__ as p; sys.exit(p.main())"
# What is measured is the other checkout's, how it is measured is this one's.
_MEASURE: Final = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); import ggufphys; sys.path[0] = sys.argv.pop(1); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def inspecting(checkout: Path, *arguments: str) -> list[str]:
    """The command that runs a checkout's `ggufphys` with this interpreter and its packages."""
    return [sys.executable, "-c", _INSPECT, str(checkout), *arguments]


def compile_code(checkout: Path) -> None:
    """Write the byte code that an installed package has, whatever PYTHONDONTWRITEBYTECODE says."""
    for room in ROOMS:
        compileall.compile_dir(checkout / room, quiet=1)


def in_turn(module: str, arguments: Sequence[str], checkout: Path, rounds: int) -> Iterator[tuple[Any, Any]]:
    """What a benchmark's `--json` says in the other checkout and in this one, again and again.

    Raises:
        RuntimeError: it fails in one of them; that it misses a bar is no failure.
    """
    for root in (checkout, HERE):
        compile_code(root)
    for _ in range(rounds):
        yield _run(module, arguments, checkout.absolute()), _run(module, arguments, HERE)


def measured_in_turn(module: str, arguments: Sequence[str], checkout: Path, rounds: int) -> Iterator[tuple[Any, Any]]:
    """What this checkout's benchmark says of the other one's `ggufphys` and of its own, again and again.

    Raises:
        RuntimeError: it fails with one of them.
    """
    for _ in range(rounds):
        yield _answer(module, arguments, checkout.absolute()), _answer(module, arguments, HERE)


def _answer(module: str, arguments: Sequence[str], checkout: Path) -> Any:
    return _document(
        [sys.executable, "-c", _MEASURE, str(checkout), str(HERE), module, "--json", *arguments], module, checkout
    )


def _run(module: str, arguments: Sequence[str], checkout: Path) -> Any:
    return _document([sys.executable, "-m", module, "--json", *arguments], module, checkout)


def _document(command: Sequence[str], module: str, checkout: Path) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    answer = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    try:
        return json.loads(answer.stdout)
    except ValueError:
        raise RuntimeError(f"{module} fails in {checkout}: {answer.stderr.strip() or answer.stdout.strip()}") from None
