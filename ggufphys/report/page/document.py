"""One page for one file: what it is, would it load, what lies where at each length of context, layer by layer."""

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile
from ggufphys.loads.refusal import grouped, headline
from ggufphys.plan.contexts import ContextPoint
from ggufphys.plan.layer_weights import LayerBytes
from ggufphys.report.inspection import Inspection, model_lines, type_bytes
from ggufphys.report.page.lying import Lying, lying_html
from ggufphys.report.page.pictures import columns, patterns, share_bar, swatch
from ggufphys.units import format_bytes, format_mib

LARGEST: Final = 12  # rows of tensors
_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)")  # a layer's, in a tensor's name
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How the file lies in memory: a point a length of context, and bytes layer by layer at the one that was asked."""

    points: Sequence[ContextPoint]
    layers: Sequence[LayerBytes]


def page(found: Inspection, run: Run | None, *, command: str) -> str:
    """The whole document. `command` prints the same numbers."""
    lying = None
    if run is not None and found.prediction is not None and found.params is not None:
        lying = Lying(gguf=found.gguf, points=run.points, asked=found.prediction, params=found.params)
    body = [*_head(found), *(lying_html(lying) if lying is not None else ())]
    if run is not None:
        body += _layers(run.layers)
    body += [*_types(found.gguf), *_largest(found.gguf), *_sections(found), *_terms(found), *_foot(found, command)]
    script = f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>" if lying is not None else ""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(found.gguf.name)}: what it costs in memory</title>",
            f"<style>{(_HERE / 'page.css').read_text(encoding='utf-8')}</style></head>",
            f'<body class="no-script">{patterns()}',
            *body,
            f"{script}</body></html>",
            "",
        ]
    )


def _head(found: Inspection) -> Iterator[str]:
    first, *others = model_lines(found.gguf)
    yield f"<header><h1>{escape(found.gguf.name)}</h1>"
    for line in (first.removeprefix(f"{found.gguf.name}: "), *others):
        yield f"<p>{escape(line)}</p>"
    yield f'<p class="soft">{escape(found.gguf.location)}</p></header>'
    if reasons := tuple(grouped(found.refusals)):
        yield f'<p class="verdict bad" id="loads">{headline(found.refusals)}:</p><ul>'
        yield from (f'<li>{escape(str(r))} <span class="source">({escape(r.source)})</span></li>' for r in reasons)
        yield "</ul>"
    elif found.prediction is not None:
        yield '<p class="verdict good" id="loads">llama.cpp would load this file</p>'
    if found.all_notes:
        if found.prediction is not None:
            yield f'<p class="soft">at {found.prediction.context.n_ctx:,} tokens of context:</p>'
        yield f"<ul>{''.join(f'<li>{_prose(note)}</li>' for note in found.all_notes)}</ul>"


def _layers(layers: Sequence[LayerBytes]) -> Iterator[str]:
    numbered = [layer for layer in layers if layer.is_layer]
    edges = [layer for layer in layers if not layer.is_layer]
    if not numbered:
        return
    keeps = any(layer.keeps for layer in numbered)
    devices = [" + ".join(dict.fromkeys((*layer.weights, *layer.keeps))) for layer in numbered]
    yield '<section id="by-layer"><h2>Layer by layer</h2><figure>'
    yield columns(
        [(sum(layer.weights.values()), sum(layer.keeps.values())) for layer in numbered],
        [layer.name for layer in numbered],
        devices if len(set(devices)) > 1 else [""] * len(numbered),
        label="bytes of each layer",
    )
    largest = max(layer.nbytes for layer in numbered)
    kept = ", B above them what it keeps of the context, at the length that was asked for" if keeps else ""
    yield (
        f"<figcaption>A column a layer, as high as its bytes (the highest: {format_mib(largest)} MiB): A its weights"
        f"{kept}.</figcaption></figure>"
    )
    rows = [*_alike(numbered), *((edge.name, edge, 1) for edge in edges)]
    header = ('<tr><th></th><th>on</th><th class="n">' + swatch(0) + 'weights, MiB each</th>'
              '<th class="n">' + swatch(1) + 'keeps, MiB each</th><th class="n">MiB in all</th></tr>')  # fmt: skip
    yield f'<div class="scroll"><table>{header}'
    for name, layer, n in rows:
        places = " + ".join(dict.fromkeys((*layer.weights, *layer.keeps)))
        weights, kept = (_mib(sum(by_device.values())) for by_device in (layer.weights, layer.keeps))
        yield (
            f'<tr><td class="text">{escape(name)}</td><td>{escape(places)}</td><td class="n">{weights}</td>'
            f'<td class="n">{kept}</td><td class="n">{format_mib(n * layer.nbytes)}</td></tr>'
        )
    yield "</table></div></section>"


def _alike(layers: Sequence[LayerBytes]) -> Iterator[tuple[str, LayerBytes, int]]:
    """Layers of the same bytes on the same devices, named by their numbers; with how many they are."""
    kinds: dict[str, list[LayerBytes]] = {}
    for layer in layers:
        kinds.setdefault(f"{layer.weights} {layer.keeps}", []).append(layer)
    for alike in kinds.values():
        yield f"layer{'s' * (len(alike) > 1)} {_numbers([int(layer.name) for layer in alike])}", alike[0], len(alike)


def _numbers(numbers: Sequence[int]) -> str:
    """`0-2, 5, 8-9` of a rising sequence."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _types(gguf: GGUFFile) -> Iterator[str]:
    nbytes = type_bytes(gguf)
    if not nbytes:
        return
    counts = {name: sum(t.type_name == name for t in gguf.tensors) for name in nbytes}
    yield '<section id="types"><h2>Types by bytes</h2><div class="scroll"><table>'
    yield '<tr><th>type</th><th class="n">tensors</th><th class="n">MiB</th><th class="n">share</th><th></th></tr>'
    for name, n in nbytes.items():
        share = n / (gguf.tensor_bytes or 1)
        yield (
            f'<tr><td>{escape(name)}</td><td class="n">{counts[name]:,}</td><td class="n">{format_mib(n)}</td>'
            f'<td class="n">{100 * share:.1f} %</td><td class="wide">{share_bar(share)}</td></tr>'
        )
    yield "</table></div></section>"


def _largest(gguf: GGUFFile) -> Iterator[str]:
    """Tensors that are alike in several layers are one row."""
    kinds: dict[tuple[str, str, tuple[int, ...], int], int] = {}
    for tensor in gguf.tensors:
        if tensor.nbytes is not None:
            kind = (_NUMBER.sub("*", tensor.name), tensor.type_name, tensor.ne, tensor.nbytes)
            kinds[kind] = kinds.get(kind, 0) + 1
    rows = sorted(kinds.items(), key=lambda item: -item[0][-1])
    if not rows:
        return
    yield f'<section id="tensors"><h2>{"All" if len(rows) <= LARGEST else "The largest"} tensors</h2>'
    yield '<div class="scroll"><table><tr><th>name</th><th class="n">tensors</th><th>shape</th><th>type</th>'
    yield '<th class="n">MiB each</th><th class="n">MiB in all</th><th class="n">share</th></tr>'
    for (name, type_name, ne, nbytes), n in rows[:LARGEST]:
        share = n * nbytes / (gguf.tensor_bytes or 1)
        shape = " × ".join(f"{k:,}" for k in ne)
        yield (
            f'<tr><td class="text">{escape(name)}</td><td class="n">{n:,}</td><td>{shape}</td>'
            f'<td>{escape(type_name)}</td><td class="n">{format_mib(nbytes)}</td>'
            f'<td class="n">{format_mib(n * nbytes)}</td><td class="n">{100 * share:.1f} %</td></tr>'
        )
    yield "</table></div>"
    if rest := rows[LARGEST:]:
        n_bytes = sum(n * kind[-1] for kind, n in rest)
        yield f'<p class="soft">and {sum(n for _, n in rest):,} smaller ones, {format_bytes(n_bytes)} together</p>'
    yield "</section>"


def _sections(found: Inspection) -> Iterator[str]:
    """Answers to further questions, as the report on a terminal has them."""
    for section in found.sections:
        if section.lines:
            yield f'<section id="{escape(section.key)}"><h2>{escape(section.key.replace("_", " ").capitalize())}</h2>'
            yield f"<pre>{escape(chr(10).join(section.lines))}</pre></section>"


def _terms(found: Inspection) -> Iterator[str]:
    terms = found.prediction.terms if found.prediction is not None else (*found.weights, *found.attachment)
    if not terms:
        return
    yield '<section id="terms"><h2>Why so many bytes</h2>'
    yield "<p>Each term with its formula and the place in llama.cpp's source that it follows.</p>"
    yield '<dl class="terms">'
    for term in terms:
        where = term.device if term.buffer in ("", term.device) else f"{term.device}, {term.buffer}"
        yield (
            f"<dt>{escape(term.quantity)}: {escape(term.name)}, {term.nbytes:,} B ({escape(where)})</dt>"
            f'<dd>= {escape(term.formula)}<br><span class="source">{escape(term.source)}</span></dd>'
        )
    yield "</dl></section>"


def _foot(found: Inspection, command: str) -> Iterator[str]:
    build = f"for llama.cpp b{found.params.llama_build}; " if found.params is not None else ""
    yield f"<footer><p>{build}the same numbers: <code>{escape(command)}</code></p></footer>"


def _prose(text: str) -> str:
    """A sentence, with what stands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _mib(nbytes: int) -> str:
    return format_mib(nbytes) if nbytes else "–"
