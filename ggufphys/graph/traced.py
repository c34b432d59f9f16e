"""One graph for many contexts: built once, its sizes known as affine functions of the context and of the outputs.

The unknowns are the length of a sequence's context, in steps of what llama.cpp pads it to, and how many outputs are
wanted. Everything else about a context and a batch decides which nodes there are.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar, cast

from ggufphys.graph.affine import Point, Trace
from ggufphys.graph.alloc import Lifetimes, lifetimes
from ggufphys.graph.batch import Batch
from ggufphys.graph.ir import Graph
from ggufphys.graph.layers import Layers, expands_in_time, has_constants
from ggufphys.graph.split import Part
from ggufphys.params import HOST, N_CTX_PAD, ContextParams

REMEMBERED: Final = 8

Cut = Callable[[Graph], Mapping[str, Part]]
"""What makes of a graph the part of each device."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Piece:
    """When one device's buffer is taken and given back, and which of the layers that were built it has nodes of."""

    lifetimes: Lifetimes
    layers: range


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A graph cut into pieces, good wherever `trace` holds. A graph that was really cut is of no more use.

    `stands` says whether the layers that were built may stand for all, as far as the nodes tell.
    """

    kind: Hashable
    graph: Graph
    pieces: Mapping[str, Piece]
    stands: bool
    trace: Trace
    uses: dict[Hashable, tuple[Sequence[int], int]]  # see `Layouts.use`


class Tracer:
    """What was made of one model's graphs, good for many contexts. `build` makes a graph of some layers, None for all.

    A few kinds of contexts and batches are remembered, more than one prediction looks at, and a few traces of each.
    """

    def __init__(self, build: Callable[[ContextParams, Batch, Sequence[int] | None], Graph]) -> None:
        self._build = build
        self._made: dict[Hashable, list[tuple[Trace, object]]] = {}

    def traced(
        self,
        context: ContextParams,
        batch: Batch,
        layers: Layers | None,
        cut: Cut | None = None,
        where: Hashable = None,
    ) -> Traced:
        """The graph of these layers, divided by `cut` (None: the host has all); `where` is equal for equal cuts."""
        kind = kind_of(context, batch, layers, where)

        def make(graph: Graph, trace: Trace) -> Traced:
            in_time = layers is None or not layers.gaps or expands_in_time(layers, graph.marks)
            stands = in_time and not (layers is not None and layers.gaps and has_constants(graph))
            parts = (cut or whole)(graph)
            pieces = {device: Piece(lifetimes(part.graph), part.layers) for device, part in parts.items()}
            return Traced(kind=kind, graph=graph, pieces=pieces, stands=stands, trace=trace, uses={})

        return self.made(kind, context, batch, layers, make)

    def made(
        self,
        kind: Hashable,
        context: ContextParams,
        batch: Batch,
        layers: Layers | None,
        make: Callable[[Graph, Trace], V],
    ) -> V:
        """What `make` makes of the graph, which must depend on no more than `kind` and the unknowns."""
        point = point_of(context, batch)
        if kind not in self._made and len(self._made) == REMEMBERED:
            self._made.clear()
        group = self._made.setdefault(kind, [])
        for trace, made in group:
            if trace.holds_at(point):
                return cast(V, made)
        trace = Trace(point)
        n_ctx_seq = trace.unknown(0, N_CTX_PAD, context.n_ctx_seq % N_CTX_PAD)
        n_ctx = n_ctx_seq * context.n_stream
        context = replace(context, n_ctx=n_ctx, n_ctx_seq=n_ctx_seq, n_batch=0, n_outputs_max=0)
        batch = replace(batch, n_outputs=trace.unknown(1))
        made = make(self._build(context, batch, None if layers is None else layers.built), trace)
        group.append((trace, made))
        del group[:-REMEMBERED]
        return made


def whole(graph: Graph) -> Mapping[str, Part]:
    """All of it on the host."""
    return {HOST: Part(graph, range(len(graph.marks)))}


def point_of(context: ContextParams, batch: Batch) -> Point:
    """The values of the unknowns."""
    return context.n_ctx_seq // N_CTX_PAD, batch.n_outputs


def kind_of(context: ContextParams, batch: Batch, layers: Layers | None, where: Hashable = None) -> Hashable:
    """All else that a graph follows from."""
    # The batch says how many tokens and outputs there are, whatever the context allows.
    of_context = replace(context, n_ctx=0, n_ctx_seq=context.n_ctx_seq % N_CTX_PAD, n_batch=0, n_outputs_max=0)
    return of_context, replace(batch, n_outputs=0), None if layers is None else (layers.built, layers.n_before), where
