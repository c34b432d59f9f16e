"""Programs of `bench/`: what goes wrong is told in a line, never as a traceback."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from bench.program import run_program
from ggufphys.errors import GGUFError, UnsupportedError

BENCH = Path(__file__).parents[2] / "bench"
ENDINGS = ("run_program(main)", "run_telling(main)")
OPENING = "drafts engine pages process serve_profile start token_speed waiting node_speed report.readme"


def programs() -> dict[str, ast.If]:
    """The last statement of each module that is run by itself, by name."""
    found = {}
    for path in BENCH.rglob("*.py"):
        last = ast.parse(path.read_text(encoding="utf-8")).body[-1:]
        if last and isinstance(last[0], ast.If) and "__main__" in ast.unparse(last[0].test):
            found[".".join(path.relative_to(BENCH).with_suffix("").parts)] = last[0]
    return found


def test_every_program_tells_its_errors() -> None:
    """Those with a command line end by `run_program`, and children by `run_telling`."""
    plain = {name for name, last in programs().items() if "; ".join(map(ast.unparse, last.body)) not in ENDINGS}
    assert plain == {
        "launcher",
        "derive",
        "rpc_worker",
        "clip.measure",
    }  # a line of our own that is run with `-c` or `-m`


@pytest.mark.parametrize("name", OPENING.split())
def test_no_such_file(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that is not there is told by the program that was called, before any child opens it."""
    monkeypatch.setattr(sys, "argv", ["program", "nowhere.gguf"])
    monkeypatch.delitem(sys.modules, f"bench.{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"bench.{name}", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    assert "nowhere.gguf: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GGUFError("x.gguf: no magic"), 3, "x.gguf: no magic"),
        (FileNotFoundError(2, "No such file", "x"), 3, "x: No such file"),
        (UnsupportedError("no rule"), 4, "no rule"),
        (ValueError("n_ctx: 0"), 2, "n_ctx: 0"),
        (RuntimeError("the server has ended"), 1, "the server has ended"),
        (subprocess.CalledProcessError(3, ["a", "b"]), 1, "returned non-zero exit status 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of the console script."""

    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_program(main)
    assert ended.value.code == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("answer", [0, 1, None])
def test_a_program_that_ends_well(answer: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Its exit code is what its main function says."""
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: answer)
    assert ended.value.code == answer
    assert capsys.readouterr().err == ""
