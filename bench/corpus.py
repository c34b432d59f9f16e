"""Which text was the embedded model trained on, and which text has it never seen?

The corpus is what every Python installation carries: the standard library's sources and the language reference's help
topics. Whether a document is held out depends on its name alone, so that any machine, with any Python version, finds
the same split again without a list. Licence of the corpus: the Python Software Foundation License, version 2.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

HELD_OUT_EVERY: Final = 16
"""One document in so many is held out, on average."""

# Character tables and build records: no prose and no program, and easy to predict, so they would flatter the figure.
SKIPPED_FOLDERS: Final = frozenset({"site-packages", "dist-packages", "encodings", "__pycache__"})
SKIPPED_PREFIXES: Final = ("_sysconfigdata", "config-")
# Never held out. Test suites: some distributions leave them out of their Python, and the measure must not move. Help
# topics and lib2to3: they repeat each other's text, and tokenize.py's, so that a held-out one would not be unseen.
TRAIN_ONLY_FOLDERS: Final = frozenset({"test", "tests", "idle_test", "pydoc_data", "lib2to3"})
TOPICS: Final = "pydoc_data/topics.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text of the corpus.

    Attributes:
        name: path relative to the standard library's folder, with `#topic` appended for a help topic.
        text: the decoded text, line ends as in the file.
    """

    name: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether training must never see this document."""
        return is_held_out(self.name)


def is_held_out(name: str) -> bool:
    """Decide by the document's name alone whether it is held out.

    One document in `HELD_OUT_EVERY` is, chosen by the SHA-256 of its name; one in `TRAIN_ONLY_FOLDERS` never is.
    """
    if TRAIN_ONLY_FOLDERS.intersection(PurePosixPath(name).parts):
        return False
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_EVERY == 0


def documents(stdlib: Path | None = None) -> Iterator[Document]:
    """Yield the corpus in the order of its names.

    Args:
        stdlib: the standard library's folder; `None` means the running Python's.

    Files that are not UTF-8 (some test inputs are broken on purpose) are left out.
    """
    root = stdlib if stdlib is not None else Path(sysconfig.get_path("stdlib"))
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    for name in names:
        if _is_skipped(PurePosixPath(name)):
            continue
        try:
            text = (root / name).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if name == TOPICS:
            yield from _topics(text)
        elif text.strip():
            yield Document(name=name, text=text)


def held_out(stdlib: Path | None = None) -> list[Document]:
    """Return the documents that training never saw, in the order of their names."""
    return [document for document in documents(stdlib) if document.held_out]


def _is_skipped(path: PurePosixPath) -> bool:
    return bool(SKIPPED_FOLDERS.intersection(path.parts)) or any(
        part.startswith(SKIPPED_PREFIXES) for part in path.parts
    )


def _topics(source: str) -> Iterator[Document]:
    # The file is one dict literal of topic -> text: read as data, so that the text comes unescaped and nothing is run.
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(node)
            for topic in sorted(topics):
                yield Document(name=f"{TOPICS}#{topic}", text=topics[topic])
