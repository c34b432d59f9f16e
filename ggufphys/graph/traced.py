"""One graph for many contexts: built once, its sizes known as affine functions of the context and of the outputs.

The unknowns are the length of a sequence's context, in steps of what llama.cpp pads it to, and how many outputs are
wanted. Everything else about a context and a batch decides which nodes there are.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ggufphys.graph.affine import Point, Question, Trace, at, holds_at
from ggufphys.graph.alloc import Lifetimes, lifetimes, tensor_sizes, written_sizes
from ggufphys.graph.batch import Batch
from ggufphys.graph.ir import Graph
from ggufphys.graph.layers import Layers, expands_in_time, has_constants
from ggufphys.graph.split import Part
from ggufphys.params import HOST, N_CTX_PAD, ContextParams

REMEMBERED: Final = 6  # kinds of context and batch: more than a prediction looks at

Cut = Callable[[Graph], Mapping[str, Part]]
"""What makes of a graph the part of each device."""


@dataclass(frozen=True, slots=True)
class Piece:
    """When one device's buffer is taken and given back, and which of the layers that were built it has nodes of."""

    lifetimes: Lifetimes
    layers: range


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A graph whose pieces hold at every point where `trace` does; its nodes and their sizes where `to_build` does.

    `sizes` are bytes of leafs and nodes. `stands` says whether the layers
    that were built may stand for all, as far as the nodes tell. A graph that is cut is of no more use.
    """

    kind: Hashable
    graph: Graph
    sizes: tuple[int, ...]
    pieces: Mapping[str, Piece]
    stands: bool
    trace: Trace
    to_build: Mapping[Question, bool]

    def has_nodes_of(self, kind: Hashable, point: Point) -> bool:
        """Whether the graph of such a context and batch has the same nodes at a point."""
        return kind == self.kind and holds_at(self.to_build, point)

    def written_sizes(self, reserved: Lifetimes, point: Point) -> list[int]:
        """Bytes that are written of each stretch of a layout when this graph runs in it."""
        sizes = [size if type(size) is int else at(size, point) for size in self.sizes]
        return written_sizes(reserved, self.graph, sizes)


class Tracer:
    """The traced graphs of one model. `build` makes a graph of some layers, None for all."""

    def __init__(self, build: Callable[[ContextParams, Batch, Sequence[int] | None], Graph]) -> None:
        self._build = build
        self._made: dict[Hashable, list[Traced]] = {}

    def traced(
        self,
        context: ContextParams,
        batch: Batch,
        layers: Layers | None,
        cut: Cut | None = None,
        where: Hashable = None,
    ) -> Traced:
        """The graph, from the layers to be built, whose sizes hold at the context's point.

        `cut` divides it among devices, None for the host alone; `where` is equal where it divides graphs alike.
        """
        kind = kind_of(context, batch, layers, where)
        point = point_of(context, batch)
        if kind not in self._made and len(self._made) == REMEMBERED:
            self._made.clear()
        made = self._made.setdefault(kind, [])
        for traced in made:
            if traced.trace.holds_at(point):
                return traced
        made.append(self._trace(kind, context, batch, layers, cut))
        return made[-1]

    def _trace(
        self, kind: Hashable, context: ContextParams, batch: Batch, layers: Layers | None, cut: Cut | None
    ) -> Traced:
        trace = Trace(point_of(context, batch))
        n_ctx_seq = trace.unknown(0, N_CTX_PAD, context.n_ctx_seq % N_CTX_PAD)
        context = replace(context, n_ctx=n_ctx_seq * context.n_stream, n_ctx_seq=n_ctx_seq)
        batch = replace(batch, n_outputs=trace.unknown(1))
        graph = self._build(context, batch, None if layers is None else layers.built)
        sizes = tensor_sizes(graph) if cut is None else ()
        to_build = dict(trace.questions)
        stands = (
            layers is None or not layers.gaps or (expands_in_time(layers, graph.marks) and not has_constants(graph))
        )
        pieces = {device: Piece(lifetimes(part.graph), part.layers) for device, part in (cut or whole)(graph).items()}
        return Traced(
            kind=kind, graph=graph, sizes=sizes, pieces=pieces, stands=stands, trace=trace, to_build=to_build
        )  # fmt: skip


def whole(graph: Graph) -> Mapping[str, Part]:
    """All of it on the host."""
    return {HOST: Part(graph, range(len(graph.marks)))}


def point_of(context: ContextParams, batch: Batch) -> Point:
    """The values of the unknowns."""
    return context.n_ctx_seq // N_CTX_PAD, batch.n_outputs


def kind_of(context: ContextParams, batch: Batch, layers: Layers | None, where: Hashable = None) -> Hashable:
    """All else that a graph follows from."""
    of_context = replace(context, n_ctx=0, n_ctx_seq=context.n_ctx_seq % N_CTX_PAD)
    return of_context, replace(batch, n_outputs=0), None if layers is None else layers.built, where
