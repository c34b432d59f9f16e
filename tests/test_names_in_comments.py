"""What comments and docstrings name of this project is there: a reader who follows a name finds something."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
ROOMS: Final = ("ggufphys", "refengine", "server", "bench", "scripts")
DOTTED: Final = re.compile(rf"(?<![\w`/.-])`?((?:{'|'.join(ROOMS)})(?:\.\w+)+)")
COMMENT: Final = re.compile(r"#.*")  # of a text, too: what it names should be there as well
PATH: Final = re.compile(rf"(?<![\w/.-])((?:{'|'.join(ROOMS)}|tests|docs|findings)/[\w/.-]+\.(?:py|md|toml|txt|sh))")


def remarks(source: str) -> Iterator[str]:
    """Comments, and strings that stand alone: docstrings, and what is said below a name."""
    yield from COMMENT.findall(source)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


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
    for file in (path for room in (*ROOMS, "tests") for path in sorted((ROOT / room).rglob("*.py"))):
        for text in remarks(file.read_text()):
            names = DOTTED.findall(text)
            paths = [path for path in PATH.findall(text) if path != "docs/gguf.md"]  # ggml's own page
            seen += len(names) + len(paths)
            wrong += [(str(file.relative_to(ROOT)), name) for name in names if not is_there(name)]
            wrong += [(str(file.relative_to(ROOT)), path) for path in paths if not (ROOT / path).exists()]
    assert seen > 200
    assert wrong == []
