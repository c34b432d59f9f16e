"""Scripts explain themselves."""

import re
import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [path for path in sorted((ROOT / "scripts").glob("*.py")) if path.name != "__init__.py"]
ARGUMENT = re.compile(r"  (\S+(?: \S+)*)(  +\S.*)?")  # two blanks, the argument, and what it means behind it or below


def unexplained(lines: Sequence[str]) -> list[str]:
    """The arguments of a help text that nothing is said about."""
    matches = [(match, below) for line, below in zip(lines, [*lines[1:], ""], strict=True)
               if (match := ARGUMENT.fullmatch(line))]  # fmt: skip
    return [match[1] for match, below in matches if match[2] is None and not below.startswith(12 * " ")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`-h` says how a script is called, what it is for, and what each argument means; it does nothing."""
    monkeypatch.setattr("sys.argv", [str(path), "-h"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")

    about, _, options = capsys.readouterr().out.partition("\noptions:\n")
    assert stop.value.code == 0
    assert about.startswith(f"usage: {path.name}")
    assert len(about.split()) > 20
    arguments = about.partition("\npositional arguments:\n")[2]
    assert unexplained([*arguments.splitlines(), *options.splitlines()]) == []


def test_unexplained_arguments_are_found() -> None:
    """The search above finds an argument without a word, and no other."""
    lines = ["  -h, --help  show this", "  --seed SEED", "  --extra NAME", "               install it", "  files"]

    assert unexplained(lines) == ["--seed SEED", "files"]
