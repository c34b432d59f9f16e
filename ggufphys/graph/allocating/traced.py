"""One graph for many contexts: built once, its sizes known as affine functions of the context and of the outputs.

The unknowns are the length of a sequence's context, in steps of what llama.cpp pads it to, and how many outputs are
wanted. Everything else about a context and a batch decides which nodes there are.
"""

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from operator import attrgetter
from typing import Final, TypeVar, cast

from ggufphys.context import N_CTX_PAD, ContextParams
from ggufphys.frozen import dataclass, fields, replace
from ggufphys.graph.affine import Point, Trace
from ggufphys.graph.allocating.alloc import SideBySide
from ggufphys.graph.allocating.course import Course, in_order
from ggufphys.graph.allocating.layers import Layers, course_of_all, expands_in_time
from ggufphys.graph.allocating.lifetimes import Lifetimes, apart, is_constant, lifetimes
from ggufphys.graph.batch import Batch
from ggufphys.graph.ir import Graph, Part
from ggufphys.params import HOST

REMEMBERED: Final = 8
GRAPHS: Final = 2  # of each kind that are remembered; what was made of one is smaller

Cut = Callable[[Graph], Mapping[str, Part]]
"""What makes of a graph the part of each device."""

V = TypeVar("V")


def whole(graph: Graph) -> Mapping[str, Part]:
    """The division of a graph that runs on the host alone."""
    return {HOST: Part(graph, range(len(graph.marks)))}


@dataclass(frozen=True, slots=True)
class Piece:
    """When one device's buffer is taken and given back, and the layers that it has nodes of; None: all were built.

    One that does not fold (`Part`) says nothing about layers that were not built.
    """

    lifetimes: Lifetimes
    layers: Layers | None
    folds: bool = True

    @property
    def course(self) -> Course | None:
        """The piece's course through all layers; None where those that were built do not tell."""
        if self.layers is None or not self.layers.gaps:
            return in_order(self.lifetimes)
        return course_of_all(self.layers, self.lifetimes) if self.folds else None


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A graph cut into pieces, good wherever `trace` holds; it is whole again.

    `in_time` says that no node of a layer comes later than `Layers` allows for.
    """

    kind: Hashable
    graph: Graph
    pieces: Mapping[str, Piece]
    in_time: bool
    trace: Trace
    uses: dict[Hashable, tuple[Sequence[int], int]]  # see `Layouts.use`

    @cached_property
    def courses(self) -> Mapping[str, Course] | None:
        """What happens to each device's buffer; None where the layers that were built do not stand for all."""
        found = {device: piece.course for device, piece in self.pieces.items()} if self.in_time else {}
        courses = {device: course for device, course in found.items() if course is not None}
        return courses if len(courses) == len(self.pieces) else None


@dataclass(frozen=True, slots=True)
class Bound:
    """What each device's buffer cannot exceed, good wherever a trace holds.

    None where the layers that were built do not say how much each other one may add.
    """

    parts: Mapping[str, SideBySide] | None


class Tracer:
    """What was made of one model's graphs, good for many contexts. `build` makes a graph of some layers, None for all.

    A few kinds of contexts and batches are remembered, more than one prediction looks at, and a few traces of each.
    """

    def __init__(self, build: Callable[[ContextParams, Batch, Sequence[int] | None], Graph]) -> None:
        self._build = build
        self._graphs: dict[Hashable, list[tuple[Trace, Graph]]] = {}
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
            with _divided(graph, cut) as parts:
                pieces = {
                    device: Piece(
                        lifetimes(part.graph), None if layers is None else _with_nodes(layers, part.layers), part.folds
                    )
                    for device, part in parts.items()
                }
            return Traced(kind=kind, graph=graph, pieces=pieces, in_time=in_time, trace=trace, uses={})

        return self.made(kind, context, batch, layers, make)

    def bound(
        self, context: ContextParams, batch: Batch, layers: Layers, alignments: Mapping[str, int],
        cut: Cut | None = None, where: Hashable = None,
    ) -> Bound:  # fmt: skip
        """What the buffers of such a graph cannot exceed, in whatever order the nodes run; see `traced`."""

        def make(graph: Graph, _: Trace) -> Bound:
            stand_for = layers.stand_for
            in_time = not layers.gaps or expands_in_time(layers, graph.marks)
            if not in_time or any(map(is_constant, graph.leafs)):
                return Bound(None)
            with _divided(graph, cut) as parts:
                if not all(part.folds for part in parts.values()):
                    return Bound(None)
                sizes = {device: apart(part.graph) for device, part in parts.items()}
            return Bound({device: SideBySide(s, stand_for, alignments[device]) for device, s in sizes.items()})

        return self.made(kind_of(context, batch, layers, ("bound", where)), context, batch, layers, make)

    def made(
        self,
        kind: Hashable,
        context: ContextParams,
        batch: Batch,
        layers: Layers | None,
        make: Callable[[Graph, Trace], V],
    ) -> V:
        """What `make` makes of the graph, which must depend on no more than `kind` and the unknowns.

        It leaves the graph as it was, for others to make something of. What it asks may have another answer at this
        point than where the graph was built, and its errors tell of that one: then a graph is built here.
        """
        point = point_of(context, batch)
        group = _used_last(self._made, kind)
        for trace, made in group:
            if trace.holds_at(point):
                return cast(V, made)
        del group[: 1 - REMEMBERED]  # room for what is made now
        graphs = _used_last(self._graphs, kind_of(context, batch, layers))
        with collection_paused():
            for trace, graph in [known for known in graphs if known[0].holds_at(point)]:
                with suppress(ValueError):
                    found = make(graph, trace)
                    if trace.holds_at(point):
                        group.append((trace, found))
                        return found
            del graphs[: 1 - GRAPHS]  # first: `make` may fail, and be asked again
            graphs.append(self._built(context, batch, layers))
            trace, graph = graphs[-1]
            found = make(graph, trace)
        group.append((trace, found))
        return found

    def _built(self, context: ContextParams, batch: Batch, layers: Layers | None) -> tuple[Trace, Graph]:
        trace = Trace(point_of(context, batch))
        n_ctx_seq = trace.unknown(0, N_CTX_PAD, context.n_ctx_seq % N_CTX_PAD)
        n_ctx = n_ctx_seq * context.n_stream
        context = replace(context, n_ctx=n_ctx, n_ctx_seq=n_ctx_seq, n_batch=0, n_outputs_max=0)
        batch = replace(batch, n_outputs=trace.unknown(1))
        return trace, self._build(context, batch, None if layers is None else layers.built)


def _used_last(groups: dict[Hashable, list[V]], kind: Hashable) -> list[V]:
    """What there is of a kind; the kind that was not asked for longest is forgotten."""
    group = groups[kind] = groups.pop(kind, [])
    if len(groups) > REMEMBERED:
        del groups[next(iter(groups))]
    return group


@contextmanager
def _divided(graph: Graph, cut: Cut | None) -> Iterator[Mapping[str, Part]]:
    """The parts of a graph, which is whole again afterwards."""
    if cut is None:
        yield whole(graph)
        return
    sources, outputs = [node.src for node in graph.nodes], [leaf.is_output for leaf in graph.leafs]
    try:
        yield cut(graph)
    finally:
        for node, src in zip(graph.nodes, sources, strict=True):
            node.src = src
        for leaf, is_output in zip(graph.leafs, outputs, strict=True):
            leaf.is_output = is_output


@contextmanager
def collection_paused() -> Iterator[None]:
    """No search for garbage in cycles meanwhile: graphs and what is made of them live on, and have no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _with_nodes(layers: Layers, built: range) -> Layers:
    """Of the layers the part between those of `built` that have nodes."""
    return layers.part(layers.built[built[0]], layers.built[built[-1]]) if built else layers.part(0, -1)


def point_of(context: ContextParams, batch: Batch) -> Point:
    """The values of the unknowns."""
    return context.n_ctx_seq // N_CTX_PAD, batch.n_outputs


def kind_of(context: ContextParams, batch: Batch, layers: Layers | None, where: Hashable = None) -> Hashable:
    """All else that a graph follows from."""
    built = None if layers is None else (layers.built, layers.n_before)
    return context.n_ctx_seq % N_CTX_PAD, _OF_CONTEXT(context), _OF_BATCH(batch), built, where


# The batch says how many tokens and outputs there are, whatever the context allows.
_UNKNOWN: Final = frozenset(("n_ctx", "n_ctx_seq", "n_batch", "n_outputs_max", "n_outputs"))
_OF_CONTEXT: Final = attrgetter(*(f.name for f in fields(ContextParams) if f.name not in _UNKNOWN))
_OF_BATCH: Final = attrgetter(*(f.name for f in fields(Batch) if f.name not in _UNKNOWN))
