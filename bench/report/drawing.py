"""How the report's pictures look: told apart without colour, the same bytes for the same numbers."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ggufphys.errors import MissingExtraError, with_extra

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind tell apart; hatches, lines and markers do without them.
COLORS: Final = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#f0e442", "#999999")
LINE_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555")  # dark on white
HATCHES: Final = ("", "///", "---", "xx")  # lines alone: circles take 50 KB of SVG each
LINES: Final = ("-", "--", "-.", ":")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.35, "hatch.linewidth": 0.6, "axes.axisbelow": True,
    "legend.fontsize": 9, "figure.facecolor": "white",
}  # fmt: skip


@dataclass(slots=True)
class Drawing:
    """A figure while it is drawn; afterwards `svg` is what a page embeds."""

    figure: "Figure"
    svg: str = ""


@contextmanager
def drawing(name: str, width: float, height: float) -> Iterator[Drawing]:
    """A figure of so many inches, in the report's style.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"the report's pictures need matplotlib ({error}): {with_extra('all')}") from error
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        found = Drawing(Figure(figsize=(width, height), layout="constrained"))
        yield found
        out = io.StringIO()
        found.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        found.svg = _embedded(out.getvalue(), name)


def plain_ticks(axis: "Axis") -> None:
    """Of a logarithmic axis: 1, 2 and 5 of each power of ten, as numbers are written."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _embedded(text: str, name: str) -> str:
    """Without the document's head, with ids of its own, as wide as its place."""
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href=")#', rf"\1#{name}-", text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'<svg\b[^>]*?width="([\d.]+)pt"[^>]*?>', lambda m: _sized(m[0]), text, count=1).strip()


def _sized(tag: str) -> str:
    tag = re.sub(r'\bheight="[\d.]+pt"', "", tag)
    return re.sub(r'\bwidth="([\d.]+)pt"', r'style="width:\1pt;max-width:100%;height:auto"', tag)
