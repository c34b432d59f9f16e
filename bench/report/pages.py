"""The report as one page of HTML that needs nothing beside itself, and as Markdown, which leaves the pictures out."""

import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Final

from bench.report.section import Section, Table

_STYLE: Final = """
.picture { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .6rem; overflow-x: auto; }
.picture svg { min-width: 42rem; }
.picture svg text { font-weight: 400; fill: #000; }
.missing { border-left: 4px solid var(--line); padding-left: .8rem; }
td { vertical-align: top; }
th.n { white-space: normal; }
td.text { min-width: 14rem; }
td.name { min-width: 9rem; }
td.long { min-width: 8rem; overflow-wrap: anywhere; font-size: 90%; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { .picture, .scroll { overflow: visible; } .picture svg { min-width: 0; }
  table { font-size: 9px; } th, td { padding: .1rem .3rem; }
  td.text, td.name, td.long { min-width: 0; } section > p { break-after: avoid; break-inside: avoid; } }
"""


def as_html(title: str, sections: Sequence[Section]) -> str:
    """One document."""
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
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = (_kind(cell, is_number=i in table.right) for i, cell in enumerate(cells))
        found = (f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(found)}</tr>"

    return (
        f'<div class="scroll"><table>{row(table.header, "th")}{"".join(row(r, "td") for r in table.rows)}</table></div>'
    )


def _kind(cell: str, *, is_number: bool) -> str:
    """How wide a cell may be: a number stays on its line, an address breaks anywhere."""
    if is_number:
        return ' class="n"'
    if "://" in cell:
        return ' class="long"'
    return ' class="text"' if len(cell) > 80 else ' class="name"' if len(cell) > 20 else ""


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The same without pictures."""
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
