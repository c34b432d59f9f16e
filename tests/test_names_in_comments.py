"""What comments and docstrings name of this project is there: a reader who follows a name finds something."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
ROOMS: Final = ("ggufphys", "refengine", "server", "bench", "scripts")
DOTTED: Final = re.compile(rf"(?<![\w`/.-])`?((?:{'|'.join(ROOMS)})(?:\.\w+)+)")
FILE: Final = re.compile(r"[\w/]+\.py\b")
COMMENT: Final = re.compile(r"#.*")  # of a text, too: what it names should be there as well
PATH: Final = re.compile(rf"(?<![\w/.-])((?:{'|'.join(ROOMS)}|tests|docs|findings)/[\w/.-]+\.(?:py|md|toml|txt|sh))")
OTHERS: Final = ("tokenize.py",)  # Python's own


def remarks(source: str) -> Iterator[str]:
    """Comments, and strings that stand alone: docstrings, and what is said below a name."""
    yield from COMMENT.findall(source)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


@cache
def remarks_by_file() -> dict[str, list[str]]:
    """What is remarked in each file of ours, by its path."""
    files = [path for room in (*ROOMS, "tests") for path in sorted((ROOT / room).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): list(remarks(path.read_text())) for path in files}


def test_files_in_comments() -> None:
    """Files of Python, by their name alone or with a folder, but those of others that stand behind `Source:`."""
    ours = {f"/{path.relative_to(ROOT)}" for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py")}
    seen, wrong = 0, []
    for file, texts in remarks_by_file().items():
        for text in texts:
            names = [name for name in FILE.findall(text.partition("Source:")[0]) if name not in OTHERS]
            seen += len(names)
            wrong += [(file, n) for n in names if not any(path.endswith(f"/{n}") for path in ours)]
    assert seen > 50
    assert wrong == []


def is_there(name: str) -> bool:
    """Whether a dotted name is a module's, or a word of one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:n])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.exists():
                return n == len(parts) or re.search(rf"\b{parts[n]}\b", file.read_text()) is not None
    return False


def test_names_in_comments() -> None:
    """Dotted names of our modules, and paths of our files, in comments and docstrings."""
    seen, wrong = 0, []
    for file, texts in remarks_by_file().items():
        for text in texts:
            names = DOTTED.findall(text)
            paths = [path for path in PATH.findall(text) if path != "docs/gguf.md"]  # ggml's own page
            seen += len(names) + len(paths)
            wrong += [(file, name) for name in names if not is_there(name)]
            wrong += [(file, path) for path in paths if not (ROOT / path).exists()]
    assert seen > 200
    assert wrong == []
