"""Bars as SVG that stretch with the page: horizontal measures in percent, text in pixels, patterns beside colours."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

LEAST_SHARE: Final = 0.025  # of a bar's width: where a segment has room for its letter
HEIGHT: Final = 30  # pixels, of a bar
MOST_NUMBERS: Final = 16  # of two or three digits in a row, beside each other on a telephone
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TILE: Final = (
    '<pattern id="p{i}" width="8" height="8" patternUnits="userSpaceOnUse">'
    '<rect width="8" height="8" fill="{light}"/>{marks}</pattern>'
)

# Light enough for a dark letter, and told apart by their marks alone: colour is never the only sign.
_TINTS: Final = (
    "#a9c9ee",
    "#f7c98b",
    "#b7dfb0",
    "#e3b7dc",
    "#f0a9a4",
    "#c8c3f0",
    "#e8df8d",
    "#a7dedb",
    "#d6d0c4",
    "#c4d2dc",
)
_LINE: Final = '<path d="{d}" stroke="#333" stroke-width="{w}" fill="none"/>'
_MARKS: Final = (
    "",
    _LINE.format(d="M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4", w=1),
    '<circle cx="2" cy="2" r="1.1" fill="#333"/><circle cx="6" cy="6" r="1.1" fill="#333"/>',
    _LINE.format(d="M0,4 h8", w=1),
    _LINE.format(d="M-2,6 l4,4 M0,0 l8,8 M6,-2 l4,4", w=1),
    _LINE.format(d="M4,0 v8", w=1),
    _LINE.format(d="M0,0 l8,8 M8,0 l-8,8", w=0.8),
    _LINE.format(d="M0,4 h8 M4,0 v8", w=0.8),
    _LINE.format(d="M0,2 l2,2 l2,-2 l2,2 l2,-2", w=1),
    '<rect x="2" y="2" width="4" height="4" fill="#555"/>',
)  # fmt: skip


def patterns() -> str:
    """The definitions that `fill` refers to, once a page."""
    tiles = (
        _TILE.format(i=i, light=light, marks=marks) for i, (light, marks) in enumerate(zip(_TINTS, _MARKS, strict=True))
    )
    return f'<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>{"".join(tiles)}</defs></svg>'


def fill(i: int) -> str:
    """The fill of the i-th of several things; there are ten."""
    return f"url(#p{i % len(_TINTS)})"


def letter(i: int) -> str:
    """What stands in its segment and beside its row of the table."""
    return LETTERS[i % len(LETTERS)]


def swatch(i: int) -> str:
    """A key of a table: pattern and letter."""
    return (
        f'<svg width="26" height="18"><rect class="segment" width="26" height="18" fill="{fill(i)}"/>'
        f'<text class="key" x="13" y="13">{letter(i)}</text></svg>'
    )


def stacked(nbytes: Sequence[int], scale_bytes: int, *, d: int | None = None, height: int = HEIGHT, label: str,
            free_bytes: int | None = None) -> str:  # fmt: skip
    """A bar of segments, one beside the other; with `d`, the device's number, the page's script finds them again."""
    parts, x = [], 0.0
    for r, n in enumerate(nbytes):
        share = n / scale_bytes if scale_bytes else 0.0
        if d is None and not n:
            continue
        ids = ("", "") if d is None else (f' id="s{r}-{d}"', f' id="k{r}-{d}"')
        hidden = ' style="display:none"' if share < LEAST_SHARE else ""
        parts.append(
            f'<rect{ids[0]} class="segment" x="{_percent(x)}" width="{_percent(share)}" height="{height}" '
            f'fill="{fill(r)}"/>'
        )
        if height >= 16:
            parts.append(
                f'<text{ids[1]} class="key" x="{_percent(x + share / 2)}" y="{height / 2 + 4:g}"{hidden}>'
                f"{letter(r)}</text>"
            )
        x += share
    if free_bytes is not None and 0 < free_bytes <= scale_bytes:
        at = _percent(free_bytes / scale_bytes)
        parts.append(f'<line class="free" x1="{at}" x2="{at}" y1="-4" y2="{height + 4}"/>')
    return (
        f'<svg width="100%" height="{height}" role="img" aria-label="{escape(label)}">'
        f'<rect class="frame" width="100%" height="{height}"/>{"".join(parts)}</svg>'
    )


def share_bar(share: float) -> str:
    """One bar as long as its share of 1."""
    bar = f'<rect class="segment" width="{_percent(share)}" height="12" fill="{fill(0)}"/>'
    return f'<svg width="100%" height="12">{bar}</svg>'


def columns(heights: Sequence[Sequence[int]], labels: Sequence[str], bands: Sequence[str], *, label: str) -> str:
    """A column for each layer, stacked from below; `labels` stand below some of them, `bands` below runs of alike."""
    n, top = len(heights), max((sum(column) for column in heights), default=0) or 1
    height, parts = 120, []
    for i, column in enumerate(heights):
        y = float(height)
        for r, nbytes in enumerate(column):
            h = height * nbytes / top
            y -= h
            if nbytes:
                parts.append(
                    f'<rect class="segment" x="{_percent((i + 0.06) / n)}" width="{_percent(0.88 / n)}" y="{y:.2f}" '
                    f'height="{h:.2f}" fill="{fill(r)}"/>'
                )
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if n <= MOST_NUMBERS * step)
    parts += [
        f'<text class="axis" text-anchor="middle" x="{_percent((i + 0.5) / n)}" y="{height + 15}">'
        f"{escape(labels[i])}</text>"
        for i in range(0, n, every)
    ]
    for row, (name, first, last) in enumerate(_runs(bands)):
        if not name:
            continue
        x1, x2 = (first + 0.1) / n, (last + 0.9) / n
        y = height + 26 + 17 * (row % 2 if x2 - x1 < 0.12 else 0)
        parts.append(
            f'<line x1="{_percent(x1)}" x2="{_percent(x2)}" y1="{y}" y2="{y}" stroke="currentColor" stroke-width="2"/>'
            f'<text x="{_percent(x1)}" y="{y + 14}">{escape(name)}</text>'
        )
    return (
        f'<svg width="100%" height="{height + (62 if any(bands) else 20)}" role="img" aria-label="{escape(label)}">'
        f'<line x1="0" x2="100%" y1="{height}" y2="{height}" stroke="currentColor"/>{"".join(parts)}</svg>'
    )


def _runs(names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    first, last = 0, ""
    i = -1
    for i, name in enumerate(names):
        if name != last:
            if i:
                yield last, first, i - 1
            first, last = i, name
    if i >= 0:
        yield last, first, i


def _percent(share: float) -> str:
    return f"{100 * share:.3f}%"
