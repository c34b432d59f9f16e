"""docs/architecture.md against the tree: its folders, their order, the files on its walks."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = ("bench", "server", "refengine", "ggufphys", "scripts")


def listed() -> list[str]:
    """The folders of the page's tree, as paths, in its order."""
    block = re.search(r"```tree\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    path: list[str] = []
    found = []
    for line in block[1].splitlines():
        match = re.fullmatch(r"( *)(\w+)/ +\S.*", line)
        assert match is not None, line
        path[len(match[1]) // 2 :] = [match[2]]
        found.append("/".join(path))
    return found


@cache
def imported(path: Path) -> frozenset[str]:
    """The modules that a file imports, wherever it does; a file is in several folders, one in another."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found)


def test_folders_are_those_of_the_tree() -> None:
    """Each package stands in the page once, and nothing else does."""
    packages = {str(path.parent.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}

    assert sorted(listed()) == sorted(packages)


def test_the_root_holds_the_door_and_no_more() -> None:
    """What is at ggufphys' root is public or used by everything; the rest has a folder."""
    root = {path.name for path in (ROOT / "ggufphys").glob("*.py")}

    door = {"__init__.py", "__main__.py", "cli.py"}
    assert root == {*door, "context.py", "errors.py", "interrupts.py", "limits.py", "params.py", "paths.py", "units.py"}


def test_folders_import_from_those_below_them() -> None:
    """No folder imports from one that stands above it among those of the same folder."""
    order = listed()
    wrong = []
    for i, below in enumerate(order):
        folder, _, _ = below.rpartition("/")
        above = [a.replace("/", ".") for a in order[:i] if a.rpartition("/")[0] == folder]
        for path in (ROOT / below).rglob("*.py"):
            wrong += [
                f"{path.relative_to(ROOT)} imports {module}"
                for module in imported(path)
                if any(module == a or module.startswith(f"{a}.") for a in above)
            ]

    assert not wrong


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:ggufphys|refengine|server|bench|tests|docs)/[\w/.]+)`", PAGE)))
)
def test_files_are_there(path: str) -> None:
    """Each file or folder that the page names exists."""
    assert (ROOT / path).exists()
