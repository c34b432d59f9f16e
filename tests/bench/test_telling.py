"""Measuring children and the parent that listens to them."""

import json
import subprocess
import sys

CODE = (
    "import sys\nfrom bench.telling import emit, run_telling\n"
    "def main():\n    emit(first=1)\n    sys.stdin.readline()\n    {}\n    return 0\nrun_telling(main)"
)


def child(line: str) -> "subprocess.Popen[str]":
    """A child that tells something, waits, and does what the line says."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", CODE.format(line)], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1
    )


def test_whatever_fails_is_told() -> None:
    """The parent hears of an error in one line."""
    with child("raise KeyError('x')") as process:
        out, err = process.communicate("\n")
    assert [*map(json.loads, out.splitlines())][1]["kind"] == "KeyError"
    assert (process.returncode, err) == (1, "")


def test_a_parent_that_is_gone_hears_nothing() -> None:
    """Nothing is written over the terminal of whoever ended it."""
    with child("emit(second=2)") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("\n")
        assert process.stderr.read() == ""
    assert process.returncode == 1
