"""CI's workflows: what their steps call is there, and other people's actions are the ones that were looked at."""

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
RUN = re.compile(r"^( *)- run: (?:\|\n((?:\1 +.*\n?|\n)+)|(.*))", re.MULTILINE)
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")


def lines_of(text: str) -> list[str]:
    """The lines that a workflow's steps, or a script, hand to a shell."""
    blocks = [block or line for _, block, line in RUN.findall(text)]
    return [line.strip() for block in blocks for line in block.splitlines()]


def lacking(line: str) -> list[str]:
    """What a line calls that is not there: a target, a module, its flags, a program."""
    program, *words = line.split()
    if program == "exec":
        return lacking(" ".join(words))
    if program == "make":
        return [word for word in words if word not in TARGETS]
    if program == "python" and words[0] == "-m":
        path = ROOT.joinpath(*words[1].split(".")).with_suffix(".py")
        if not path.exists():
            return [words[1]]
        return [word for word in words[2:] if word.startswith("--") and f'"{word}"' not in path.read_text()]
    if "/" in program:
        return [] if os.access(ROOT / program, os.X_OK) else [program]
    return []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_steps_call_is_there(path: Path) -> None:
    """Targets of the Makefile, modules with their flags, programs that may be run; files that a cache is named by."""
    text = path.read_text()
    lines = lines_of(text)
    files = re.findall(r"'([^']+)'", " ".join(re.findall(r"hashFiles\(([^)]*)\)", text)))

    assert lines
    assert [name for line in lines for name in lacking(line)] == []
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="files there have no bit that says it")
def test_what_ci_runs_is_there() -> None:
    """The same of the script that CI's first job is."""
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith(("make", "exec"))]

    assert len(lines) == 2
    assert [name for line in lines for name in lacking(line)] == []


def test_what_is_not_there_is_found() -> None:
    """The search above finds it."""
    lines = ("make nothing", "python -m scripts.nothing", "python -m scripts.test_wheel --nothing", ".ci/nothing")

    assert [lacking(line) for line in lines] == [["nothing"], ["scripts.nothing"], ["--nothing"], [".ci/nothing"]]
    assert lines_of("  - run: a\n  - run: |\n      b\n      c\n  - uses: d\n") == ["a", "b", "c"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned(path: Path) -> None:
    """By commit, since a tag may be moved; the version stands beside."""
    used = re.findall(r"uses: (.*)", path.read_text())

    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []


def test_caches_hold_what_is_built() -> None:
    """The folder that is kept between runs is the one that scripts/build_llama.py writes."""
    kept = {found for path in WORKFLOWS for found in re.findall(r"path: ~/\.cache/(.*)", path.read_text())}

    assert kept == {"ggufphys/wheels"}
    assert '"ggufphys" / "wheels"' in (ROOT / "scripts" / "build_llama.py").read_text()


def test_pythons_are_those_that_are_promised() -> None:
    """Every version in the classifiers is one that CI runs on, and no other."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    promised = {match[1] for name in classifiers if (match := re.fullmatch(r"Programming.*:: (3\.\d+)", name))}
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()

    named = re.findall(r'python(?:-version)?: (\[[^\]]*\]|"[\d.]+")', text)
    assert set(re.findall(r"3\.\d+", " ".join(named))) == promised
