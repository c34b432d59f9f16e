"""The report as one page of HTML that needs nothing beside itself, and as Markdown, which leaves the pictures out."""

import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from itertools import takewhile
from typing import Final

from bench.report.section import Section, Table

_STYLE: Final = """
.picture { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .6rem; overflow-x: auto; }
.picture svg { min-width: 42rem; }
.picture svg text { font-weight: 400; fill: #000; }
.missing { border-left: 4px solid var(--line); padding-left: .8rem; }
body { max-width: 80rem; }
td { vertical-align: top; white-space: nowrap; }
th.n { white-space: normal; }
td.text, td.name, td.long { white-space: normal; }
td.text { min-width: 10em; }
td.name { min-width: 7em; }
td.long { min-width: 8em; overflow-wrap: anywhere; font-size: 90%; }
.whole { white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 84rem) { table { font-size: 85%; } th, td { padding: .18rem .45rem; } }
@media print { .picture, .scroll { overflow: visible; } .picture svg { min-width: 0; }
  table { font-size: 9px; } th, td { padding: .1rem .3rem; }
  td { white-space: normal; } td.text, td.name, td.long { min-width: 0; }
  section > p { break-after: avoid; break-inside: avoid; } }
"""


def as_html(title: str, sections: Sequence[Section]) -> str:
    """The report as one HTML document."""
    style = files("ggufphys.report.page").joinpath("page.css").read_text(encoding="utf-8") + _STYLE
    body = "\n".join(part for section in sections for part in _section(section))
    links = ", ".join(f'<a href="#{s.key}">{escape(s.title)}</a>' for s in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{style}</style></head>\n<body><h1>{escape(title)}</h1><p>{links}</p>\n{body}\n</body></html>\n"
    )


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{escape(section.key)}"><h2>{escape(section.title)}</h2>'
    if section.is_empty:
        yield f'<p class="missing">No results. They come from: <code>{escape(section.missing)}</code></p></section>'
        return
    yield from (f"<p>{_prose(text)}</p>" for text in section.text)
    for picture in section.pictures:
        yield f'<figure><div class="picture">{picture.svg}</div>'
        yield f"<figcaption>{_prose(picture.caption)}</figcaption></figure>"
    yield from map(_table, section.tables)
    if section.commands:
        yield f"<pre>{escape(chr(10).join(section.commands))}</pre>"
    yield "</section>"


def _prose(text: str) -> str:
    """A sentence, with what stands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _table(table: Table) -> str:
    header = "".join(_cell("th", cell, is_number=i in table.right) for i, cell in enumerate(table.header))
    rows = (f"<tr>{row}</tr>" for row in _rows(table))
    return f'<div class="scroll"><table><tr>{header}</tr>{"".join(rows)}</table></div>'


def _rows(table: Table) -> Iterator[str]:
    """The cells of each row; what several rows begin with stands once, beside all of them."""
    n_columns = len(table.header)
    n_words = next((i for i in range(n_columns) if i in table.right), n_columns)
    above: Sequence[str] = ()
    for i, row in enumerate(table.rows):
        n_same = _beginning(above, row, n_words)
        yield "".join(
            _cell("td", row[j], is_number=j in table.right, n_rows=_height(table.rows[i:], j, n_words))
            for j in range(n_same, n_columns)
        )
        above = row


def _beginning(a: Sequence[str], b: Sequence[str], n: int) -> int:
    """How many of their first n cells are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a[:n], b[:n], strict=False)))


def _height(rows: Sequence[Sequence[str]], column: int, n_words: int) -> int:
    """How many of the rows the first one's cell of a column stands beside."""
    if column >= n_words:
        return 1
    return sum(1 for _ in takewhile(lambda row: _beginning(rows[0], row, n_words) > column, rows))


def _cell(tag: str, cell: str, *, is_number: bool, n_rows: int = 1) -> str:
    rows = f' rowspan="{n_rows}"' if n_rows > 1 else ""
    return f"<{tag}{_kind(cell, is_number=is_number)}{rows}>{_words(cell)}</{tag}>"


def _words(cell: str) -> str:
    """A cell's text; names and flags are not cut at their hyphens, addresses are wherever there is need."""
    return " ".join(
        f'<span class="whole">{escape(word)}</span>' if "-" in word and "://" not in word else escape(word)
        for word in cell.split(" ")
    )


def _kind(cell: str, *, is_number: bool) -> str:
    """How wide a cell may be: a number and a few words stay on their line, an address breaks anywhere."""
    if is_number:
        return ' class="n"'
    if "://" in cell or max(map(len, cell.split()), default=0) > 32:
        return ' class="long"'
    return ' class="text"' if len(cell) > 80 else ' class="name"' if len(cell) > 20 else ""


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The report as Markdown, without its pictures."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.is_empty:
            parts.append(f"No results. They come from: `{section.missing}`")
            continue
        parts += map(_escaped, section.text)
        parts += map(markdown_table, section.tables)
        if section.commands:
            parts.append("\n".join(["```", *section.commands, "```"]))
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table of pipes."""
    lines = [table.header, ["---:" if i in table.right else "---" for i in range(len(table.header))]]
    cells = [lines[0], *table.rows]
    texts = [" | ".join(_escaped(cell) for cell in row) for row in cells]
    return "\n".join([f"| {texts[0]} |", f"| {' | '.join(lines[1])} |", *(f"| {text} |" for text in texts[1:])])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
