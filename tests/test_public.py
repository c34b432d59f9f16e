"""What a public project promises beside its code: names, versions, types, and where to complain."""

import ast
import doctest
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import ggufphys

ROOT = Path(ggufphys.__file__).parents[1]
ROOMS = ("ggufphys", "refengine", "server", "bench")
MODULES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
RELEASE = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?$", re.MULTILINE)
FILE = object()  # stands for an open file


def module_name(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def declares_all(path: Path) -> bool:
    """Has the module an `__all__` of its own?"""
    body = ast.parse(path.read_text()).body
    targets = (target for node in body if isinstance(node, ast.Assign) for target in node.targets)
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


@pytest.mark.parametrize("name", [module_name(path) for path in MODULES if declares_all(path)])
def test_all_is_importable(name: str) -> None:
    """Every name in an `__all__` is there, once, and in order."""
    module = importlib.import_module(name)

    assert [n for n in module.__all__ if not hasattr(module, n)] == []
    assert sorted(set(module.__all__)) == sorted(module.__all__)


def test_all_is_what_is_there() -> None:
    """`ggufphys.__all__` is all that the package has to offer: nothing public is left out of it."""
    public = {n for n in dir(ggufphys) if not n.startswith("_") and not inspect.ismodule(getattr(ggufphys, n))}

    assert public | {"__version__"} == set(ggufphys.__all__)


def test_help_begins_with_what_works() -> None:
    """The examples that help(ggufphys) opens with run as they stand."""
    result = doctest.testmod(ggufphys)

    assert result.attempted >= 3
    assert not result.failed


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("open_gguf", (5,), "path is 5, a int: expected a file's name"),
        ("open_gguf", (b"m.gguf",), "path is b'm.gguf', a bytes"),
        ("predict_memory", ("m.gguf",), "gguf is 'm.gguf', a str: expected a GGUFFile, such as open_gguf("),
        ("predict_costs", (Path("m"),), "expected a GGUFFile"),
        ("predict_memory", (FILE, {"n_ctx": 512}), "expected a Params, such as Params(n_ctx=8192)"),
        ("predict_memory", (FILE, {}), "params is {}, a dict"),
        ("predict_costs", (FILE, 0), "params is 0, a int"),
        ("predict_speed", (FILE, None, "c.json"), "expected a Machine, such as read_machine"),
    ],
)
def test_wrong_kinds_of_arguments(name: str, arguments: tuple[object, ...], message: str) -> None:
    """What is given in place of a file or parameters is named, and never taken for the default."""
    with ggufphys.open_gguf(ggufphys.EMBEDDED_MODEL) as gguf, pytest.raises(TypeError, match=re.escape(message)):
        getattr(ggufphys, name)(*(gguf if argument is FILE else argument for argument in arguments))


def test_every_package_is_typed() -> None:
    """Each package of the wheel has its py.typed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert packages == list(ROOMS)
    assert all((ROOT / package / "py.typed").exists() for package in packages)
    assert "Typing :: Typed" in project["project"]["classifiers"]


def test_changelog_and_version_agree() -> None:
    """What is unreleased stands first; behind it the newest release is the package's version; dates go back."""
    found = [(match["version"], match["date"]) for match in RELEASE.finditer((ROOT / "CHANGELOG.md").read_text())]
    released = [version for version, date in found if date]
    dates = [date for _, date in found if date]

    assert [version for version, date in found if not date] == ["Unreleased"]
    assert found[0][0] == "Unreleased"
    assert ggufphys.__version__ == released[0]
    assert dates == sorted(dates, reverse=True)


def test_extras_are_those_that_errors_name() -> None:
    """The extra that a subcommand's error names exists, and `all` has all of them."""
    from ggufphys.cli import COMMANDS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {command.extra for command in COMMANDS.values()} <= set(extras)
    assert set(extras["serve"]) <= set(extras["all"])


@pytest.mark.parametrize("name", ["prediction", "bug", "architecture"])
def test_issue_templates(name: str) -> None:
    """Who reports a fault is asked for the JSON of `inspect` and for the log."""
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text()

    assert re.search(r"ggufphys inspect MODEL.* --json", text)
    assert "id: log" in text
    assert "ggufphys --version" in text or "llama-server --version" in text


def test_ci_runs_what_the_makefile_has() -> None:
    """Each workflow runs commands that exist: scripts of this project, or targets of the Makefile."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflows = list((ROOT / ".github" / "workflows").glob("*.yml"))

    assert workflows
    for text in (path.read_text() for path in (*workflows, ROOT / ".ci" / "run")):
        assert set(re.findall(r"\bmake ([\w-]+)", text)) <= targets
        assert all((ROOT / "scripts" / f"{name}.py").exists() for name in re.findall(r"-m scripts\.(\w+)", text))
