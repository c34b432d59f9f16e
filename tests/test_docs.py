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
LINKING = (*ROOT.glob("*.md"), *PAGES, *ROOT.glob("docs/*/*.md"), *ROOT.glob("findings/**/*.md"))
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
CODE = re.compile(r"^```.*?^```$|``?[^`\n]+``?", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
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


def anchors(page: Path) -> set[str]:
    """What a link may name behind `#`: headings as GitHub spells them, the second of one name with -1."""
    found: list[str] = []
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.append(f"{slug}-{n}" if (n := found.count(slug)) else slug)
    return set(found)


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link within the repository names a file that is there, and a heading that this file has."""
    wrong = []
    for name, anchor in LINK.findall(CODE.sub("", page.read_text())):
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f"{name}#{anchor}" if anchor else name)
    assert wrong == []


def test_every_page_is_linked() -> None:
    """README leads to each page of docs, over others at most."""
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        names = [name for name, _ in LINK.findall(CODE.sub("", page.read_text())) if name.endswith(".md")]
        ahead += {(page.parent / name).resolve() for name in names} - reached
    assert [page.name for page in PAGES if page not in reached] == []


def test_changelog_says_each_thing_once() -> None:
    """Branches that add lines there merge by themselves (.gitattributes), which may leave a line or a subject twice."""
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    said: list[str] = []
    section = ""
    for line in lines:
        if line.startswith(("## ", "### ")):
            section = line if line.startswith("## ") else f"{section.partition(' / ')[0]} / {line}"
        elif line.startswith("#### "):
            said.append(f"{section} / {line}")
        elif line.startswith("- "):
            said.append(line)

    assert len(said) > 200
    assert sorted({line for line in said if said.count(line) > 1}) == []
