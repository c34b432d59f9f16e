"""Pages with examples: what stands behind `>>>` gives what stands below it, and quoted files are as quoted."""

import doctest
import re
from pathlib import Path

import pytest

from scripts.write_cli_docs import page

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)
QUOTED = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`")
ROOMS = "ggufphys", "refengine", "server", "bench", "scripts", "tests"
WITH_EXAMPLES = [page for page in PAGES if EXAMPLES.search(page.read_text())]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples(page: Path) -> None:
    """The examples of a page, run one after the other, print what the page says."""
    text = "\n".join(EXAMPLES.findall(page.read_text()))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    failures: list[str] = []

    result = doctest.DocTestRunner(verbose=False).run(test, out=failures.append)

    assert result.attempted
    assert not result.failed, "".join(failures)


def test_quoted_files() -> None:
    """A file that a page quotes whole is quoted as it is."""
    quoted = [found for page in PAGES for found in QUOTED.findall(page.read_text())]

    assert quoted
    for path, text in quoted:
        assert text == (ROOT / path).read_text(), path


def test_files_that_pages_name_are_there() -> None:
    """A file that a page names with its folder is one of ours, however much of its path is said."""
    paths = [f"/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    named = {(page.name, name) for page in PAGES for name in NAMED.findall(page.read_text())}

    assert len(named) > 50
    assert sorted((page, name) for page, name in named if not any(path.endswith(f"/{name}") for path in paths)) == []


def test_every_flag_is_in_the_docs() -> None:
    """docs/cli.md is what the help texts of all subcommands give: `python -m scripts.write_cli_docs` writes it."""
    assert (ROOT / "docs" / "cli.md").read_text() == page()
