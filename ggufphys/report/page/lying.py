"""What lies where: a bar a device, a table of terms, and the same at each length of context, for the page's slider."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGUFFile
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Quantity
from ggufphys.params import HOST, Params
from ggufphys.plan.contexts import ContextPoint
from ggufphys.report.inspection import fit_line, run_lines
from ggufphys.report.page.pictures import LEAST_SHARE, stacked, swatch
from ggufphys.units import format_bytes, format_mib

BUFFERS: Final[tuple[Quantity, ...]] = ("model", "context", "compute", "output", "attachment")
MOST_WITH_BARS: Final = 3  # devices that a row of the lengths has room for
_PROCESS: Final = {
    "process_bytes": "process, resident",
    "file_bytes": "file-backed",
    "anon_bytes": "anonymous",
    "load_peak_bytes": "while loading, at most",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lying:
    """Points of context, the one that was asked for among them, and how it is run."""

    gguf: GGUFFile
    points: Sequence[ContextPoint]
    asked: MemoryPrediction
    params: Params

    @property
    def devices(self) -> tuple[str, ...]:
        """Their names, the host first."""
        return tuple(device.name for device in self.asked.devices)

    @property
    def rows(self) -> tuple[tuple[Quantity, str], ...]:
        """The buffers' terms by quantity and name, each once, whatever the length of context."""
        found = dict.fromkeys(
            (quantity, term.name)
            for quantity in BUFFERS
            for point in self.points
            for term in point.prediction.terms
            if term.quantity == quantity
        )
        return tuple(found)

    @property
    def scale_bytes(self) -> int:
        """What the width of a bar stands for: the most that any device holds at any length."""
        return max(device.total_bytes for point in self.points for device in point.prediction.devices) or 1

    def nbytes(self, prediction: MemoryPrediction) -> list[list[int]]:
        """Bytes of each row on each device."""
        found: dict[tuple[Quantity, str, str], int] = {}
        for term in prediction.terms:
            key = (term.quantity, term.name, term.device)
            found[key] = found.get(key, 0) + term.nbytes
        return [[found.get((*row, device), 0) for device in self.devices] for row in self.rows]

    def run_lines(self, point: ContextPoint) -> list[str]:
        """How it is run at a length of context."""
        asked = point.n_ctx == self.asked.context.n_ctx
        params = self.params if asked else replace(self.params, n_ctx=point.n_ctx)
        return run_lines(self.gguf, point.prediction, params)

    def json(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "devices": list(self.devices),
            "rows": [{"quantity": quantity, "name": name} for quantity, name in self.rows],
            "scale_bytes": self.scale_bytes,
            "least_share": LEAST_SHARE,
            "points": [self._point(point) for point in self.points],
        }

    def _point(self, point: ContextPoint) -> dict[str, Any]:
        return {
            "n_ctx": point.n_ctx,
            "nbytes": self.nbytes(point.prediction),
            "total_bytes": [device.total_bytes for device in point.prediction.devices],
            **process_bytes(point.prediction),
            "run": self.run_lines(point),
            "fits": [{"holds": fit.holds, "text": fit_line(fit)} for fit in point.fits],
        }


def process_bytes(prediction: MemoryPrediction) -> dict[str, int]:
    """What the process holds in steady decode, of which kinds, and at most while it loads."""
    process = prediction.process
    return {
        "process_bytes": prediction.process_bytes,
        "file_bytes": process.file_bytes,
        "anon_bytes": process.anon_bytes,
        "load_peak_bytes": process.phase("weights").peak_bytes,
    }


def lying_html(lying: Lying) -> Iterator[str]:
    """Slider, bars, table, and a row of bars for each length of context, which is what paper has for the slider."""
    from json import dumps  # 4 ms that other reports do not need

    asked = next(i for i, point in enumerate(lying.points) if point.n_ctx == lying.asked.context.n_ctx)
    yield '<section id="where"><h2>What lies where</h2>'
    yield "".join(
        f'<p data-run="{i}">{escape(line)}</p>' for i, line in enumerate(lying.run_lines(lying.points[asked]))
    )
    yield (
        f'<div class="slider"><label for="context">context <input type="range" id="context" min="0" '
        f'max="{len(lying.points) - 1}" value="{asked}" step="1"></label>'
        f'<output class="n-ctx" for="context">{lying.asked.context.n_ctx:,} tokens</output></div>'
    )
    yield from _fits(lying.points[asked])
    yield from _bars(lying)
    yield from _table(lying)
    yield from _ceilings(lying.asked)
    yield "</section>"
    yield from _lengths(lying)
    text = dumps(lying.json(), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    yield f'<script type="application/json" id="contexts">{text}</script>'


def _fits(point: ContextPoint) -> Iterator[str]:
    for i, fit in enumerate(point.fits):
        yield f'<p class="verdict {"good" if fit.holds else "bad"}" data-fit="{i}">{escape(fit_line(fit))}</p>'


def _bars(lying: Lying) -> Iterator[str]:
    nbytes, scale = lying.nbytes(lying.asked), lying.scale_bytes
    yield "<figure>"
    for d, device in enumerate(lying.asked.devices):
        limit = f" of {format_mib(device.memory_bytes)} free" if device.memory_bytes else ""
        name = "main memory (Host)" if device.name == HOST else device.name
        bar = stacked([row[d] for row in nbytes], scale, d=d, free_bytes=device.memory_bytes, label=name)
        yield (
            f'<div class="bar"><div class="name"><span>{escape(name)}</span>'
            f'<span><b data-total="{d}">{format_mib(device.total_bytes)}</b>{limit} MiB</span></div>{bar}</div>'
        )
    free = " A dashed line: what is free there." if any(d.memory_bytes for d in lying.asked.devices) else ""
    yield (
        f'<figcaption>llama.cpp\'s buffers at <span class="n-ctx">{lying.asked.context.n_ctx:,} tokens</span> of '
        f"context; the whole width is {format_bytes(scale)}, the most at any length below.{free}</figcaption></figure>"
    )


def _table(lying: Lying) -> Iterator[str]:
    devices, basis = lying.devices, lying.asked.basis
    heads = "".join(f'<th class="n">{escape(name)}</th>' for name in devices)
    yield f'<div class="scroll"><table><tr><th></th><th>MiB</th>{heads}<th>basis</th></tr>'
    for r, ((quantity, name), row) in enumerate(zip(lying.rows, lying.nbytes(lying.asked), strict=True)):
        cells = "".join(f'<td class="n" id="c{r}-{d}">{format_mib(n) if n else "–"}</td>' for d, n in enumerate(row))
        yield (
            f'<tr><td class="swatch">{swatch(r)}</td><td class="text">{escape(name)}</td>{cells}'
            f"<td>{escape(basis.get(quantity, 'estimate'))}</td></tr>"
        )
    cells = "".join(
        f'<td class="n" data-total="{d}">{format_mib(device.total_bytes)}</td>'
        for d, device in enumerate(lying.asked.devices)
    )
    yield f'<tr class="sum"><td></td><td>llama.cpp\'s buffers</td>{cells}<td></td></tr>'
    empty = "<td></td>" * (len(devices) - 1)
    for key, nbytes in process_bytes(lying.asked).items():
        kind = "" if key == "process_bytes" else ' class="part"'
        said = escape(basis["process"]) if key == "process_bytes" else ""
        yield (
            f'<tr{kind}><td></td><td>{_PROCESS[key]}</td><td class="n" data-process="{key}">{format_mib(nbytes)}</td>'
            f"{empty}<td>{said}</td></tr>"
        )
    yield "</table></div>"


def _ceilings(asked: MemoryPrediction) -> Iterator[str]:
    for term in asked.ceilings:
        yield (
            f'<p class="soft">later, not counted above: {escape(term.name)}, up to {format_mib(term.nbytes)} MiB '
            f"on {escape(term.device)}</p>"
        )


def _lengths(lying: Lying) -> Iterator[str]:
    has_bars = len(lying.devices) <= MOST_WITH_BARS
    heads = "".join(f'<th class="n">{escape(name)}, MiB</th>{"<th></th>" * has_bars}' for name in lying.devices)
    yield '<section id="lengths"><h2>At each length of context</h2><div class="scroll">'
    head = f'<tr><th class="n">tokens</th><th class="n">process, MiB</th>{heads}</tr>'
    yield f'<table style="--bars: {len(lying.devices)}">{head}'
    for point in lying.points:
        kind = ' class="asked"' if point.n_ctx == lying.asked.context.n_ctx else ""
        process = format_mib(point.prediction.process_bytes)
        cells = _bars_of_length(lying, point.prediction) if has_bars else _numbers_of_length(point.prediction)
        yield (
            f'<tr{kind} data-context="{point.n_ctx}"><td class="n">{point.n_ctx:,}</td><td class="n">{process}</td>'
            f"{''.join(cells)}</tr>"
        )
    yield "</table></div></section>"


def _bars_of_length(lying: Lying, prediction: MemoryPrediction) -> Iterator[str]:
    nbytes = lying.nbytes(prediction)
    for d, (device, number) in enumerate(zip(prediction.devices, _numbers_of_length(prediction), strict=True)):
        bar = stacked([row[d] for row in nbytes], lying.scale_bytes, height=14, label=device.name)
        yield f'{number}<td class="wide">{bar}</td>'


def _numbers_of_length(prediction: MemoryPrediction) -> Iterator[str]:
    for device in prediction.devices:
        yield f'<td class="n">{format_mib(device.total_bytes)}</td>'
