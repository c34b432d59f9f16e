"""The split that the embedded model's figures rest on."""

from pathlib import Path

import pytest

from bench.corpus import documents, held_out, is_held_out


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    """A folder laid out like a standard library."""
    files = {
        "json/__init__.py": b"import re\n",
        "argparse.py": b"import os\n",
        "empty.py": b"\n",
        "encodings/cp437.py": b"table = ()\n",
        "site-packages/other.py": b"x = 1\n",
        "_sysconfigdata__linux_x86_64.py": b"build = {}\n",
        "config-3.11/python-config.py": b"x = 1\n",
        "test/test_json.py": b"import json\n",
        "test/bad_coding.py": b"# \xff\n",
        "pydoc_data/topics.py": b"topics = {'with': 'A manager\\n', 'assert': 'A test\\n'}\n",
        "notes.txt": b"not a module\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def test_documents_are_the_readable_sources_and_topics_in_order(stdlib: Path) -> None:
    """Tables, build records, installed packages, undecodable and empty files are left out; topics are unescaped."""
    found = [(document.name, document.text) for document in documents(stdlib)]

    assert found == [
        ("argparse.py", "import os\n"),
        ("json/__init__.py", "import re\n"),
        ("pydoc_data/topics.py#assert", "A test\n"),
        ("pydoc_data/topics.py#with", "A manager\n"),
        ("test/test_json.py", "import json\n"),
    ]


def test_split_depends_on_the_name_alone(stdlib: Path) -> None:
    """The same name is held out whatever the text: no machine measures on training text."""
    (stdlib / "json/__init__.py").write_text("something else\n")

    assert [document.name for document in held_out(stdlib)] == ["json/__init__.py"]


@pytest.mark.parametrize("name", ["json/__init__.py", "copy.py", "traceback.py", "random.py"])
def test_split_is_the_one_the_model_was_trained_with(name: str) -> None:
    """These modules were held out of the shipped model's training; a changed rule would measure on seen text."""
    assert is_held_out(name)


@pytest.mark.parametrize("name", ["argparse.py", "typing.py", "json/decoder.py", "test/json/__init__.py"])
def test_most_documents_are_trained_on(name: str) -> None:
    """Other modules are training text, and so is every test suite."""
    assert not is_held_out(name)


def test_running_python_has_held_out_text() -> None:
    """The installed standard library holds hundreds of thousands of unseen characters, a tenth of it at most."""
    corpus = list(documents())
    unseen = sum(len(document.text) for document in corpus if document.held_out)

    assert 200_000 < unseen < sum(len(document.text) for document in corpus) / 10
