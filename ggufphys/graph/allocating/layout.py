"""How does a model's graph lie in the compute buffer, for one way of running it and one batch?

A `Layouts` belongs to one file and makes each graph once: predictions of several quantities share them, and a graph is
built from as few layers as stand for all (`ggufphys.graph.allocating.layers`).
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Final, TypeVar

from ggufphys.arch import ArchRule
from ggufphys.arch.caches import LayerCache, RecurrentState, WindowKV
from ggufphys.context import ContextParams
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.gguf.names import split_name
from ggufphys.graph.affine import Point
from ggufphys.graph.allocating.alloc import TENSOR_ALIGNMENT, Allocation, lay_out, written_sizes, written_sizes_at
from ggufphys.graph.allocating.layers import (
    Layers,
    alike,
    kinds_of,
    leave_out,
    numbered,
    one_of_each,
    settled,
    weights_by_layer,
)
from ggufphys.graph.allocating.traced import Traced, Tracer, collection_paused, kind_of, point_of
from ggufphys.graph.allocating.work import Form, work_bytes
from ggufphys.graph.batch import Batch
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.construction import Adapters
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models import HEADS, build_of
from ggufphys.graph.ops import as_known
from ggufphys.hparams.hparams import HParams
from ggufphys.hparams.keys import Keys
from ggufphys.params import HOST, ContextType

# How to choose which layers to build: how many layers are in a step before the one it leads to, whether those that are
# alike read the same, and whether kinds count only once they are `settled`.
Attempt = tuple[int, bool, bool]
ATTEMPTS: Final[tuple[Attempt, ...]] = (
    (1, True, False), (1, False, False), (2, False, False), (3, False, False), (1, False, True),
)  # fmt: skip
REMEMBERED: Final = 4  # layouts: more than one prediction looks at
UNBOUNDED: Final = 1 << 62
_HOST_ALONE: Final = {HOST: TENSOR_ALIGNMENT}

P = TypeVar("P", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the tensors of a graph lie, and which layers it was built from (None: all).

    Its sizes are those of `traced` at `point`.
    """

    traced: Traced
    point: Point
    allocation: Allocation
    layers: Layers | None


class Layouts:
    """The graphs of one model and their layouts; LoRA's `adapters` put more nodes into the graphs."""

    def __init__(
        self,
        gguf: GGUFFile,
        h: HParams,
        rule: ArchRule,
        adapters: Adapters | None = None,
        *,
        ctx_type: ContextType = "default",
        borrowed: Mapping[str, TensorInfo] | None = None,
        read: Sequence[tuple[LayerCache, ...]] | None = None,
    ) -> None:
        """The graphs of contexts of one type; where that of a draft context is not written, the trunk's instead.

        `borrowed` are weights of another model, by the names that the file gives them, `read` caches of that model
        which each layer reads.
        """
        self.h = h
        self.gguf = gguf
        self.keys = Keys(gguf, h.arch)
        self.tensors = {**gguf.tensors_by_name, **(borrowed or {})}
        self.adapters = adapters or {}
        self.ctx_type = ctx_type if h.arch in HEADS else "default"
        self.n_layer = h.n_layer_run if self.ctx_type == "default" else 0  # that others may stand for
        self.caches = rule.layers(h, self.ctx_type) if read is None else read
        self.has_windows = any(isinstance(cache, WindowKV) for layer in read or rule.layers(h) for cache in layer)
        self.lone_prompt = rule.lone_prompt
        self._weight_tensors: dict[str, Tensor] = {}
        self._alike: dict[tuple[int, str], list[TensorInfo]] = {}
        self._forms: dict[tuple[int | None, str, frozenset[str]], frozenset[Form]] = {}
        self._made: dict[tuple[ContextParams, Batch], Layout] = {}
        self.attempts: dict[Hashable, int] = {}  # which of `choices` has been of use, by what they were made for
        self.decode_counts: set[Hashable] = set()  # which other batches may have been larger than the prompt
        self.attends: dict[Hashable, bool] = {}  # whether devices have its flash attention, by what decides
        self._chosen: dict[Attempt, Layers] = {}  # by attempt
        self._useful: list[Layers] = []
        self._divided: dict[Hashable, tuple[frozenset[Any], tuple[Layers | None, ...], Layers]] = {}
        self.tracer = Tracer(self.graph)

    def graph(self, context: ContextParams, batch: Batch, layers: Sequence[int] | None = None) -> Graph:
        """The architecture's graph, of all layers unless told; the generic one, without adapters, if there is none."""
        builder = Builder(
            self.h, self.keys, self.tensors, self.caches, context, batch, self.adapters,
            layers=layers, weights=self._weight_tensors,
        )  # fmt: skip
        builder.has_windows = self.has_windows
        graph = build_of(self.h.arch, self.ctx_type)(builder)
        if context.embeddings:
            from ggufphys.graph.building.pooling import pool  # what contexts for text do without

            pool(builder)
        if "clamps_are_views" in context.rules:
            _show_clamped(graph)
        return graph

    def layout(self, context: ContextParams, batch: Batch) -> Layout:
        """The graph of one batch and its layout, as of all layers."""
        made = self._made.get((context, batch))
        if made is None:
            if len(self._made) == REMEMBERED:
                self._made.clear()
            made = self._made[context, batch] = self._lay_out(context, batch)
        return made

    def likeliest(self, context: ContextParams, batch: Batch) -> Traced:
        """The graph that `layout` looks at first."""
        return self.tracer.traced(context, batch, next(self._likely()))

    def at_most(self, context: ContextParams, batch: Batch) -> int:
        """Bytes that the layout cannot exceed: all stretches side by side. A bound that costs little."""
        parts = self.tracer.bound(context, batch, self.of_each_kind, _HOST_ALONE).parts
        return UNBOUNDED if parts is None else parts[HOST].at(point_of(context, batch))

    def _lay_out(self, context: ContextParams, batch: Batch) -> Layout:
        point = point_of(context, batch)
        for layers in self._likely():
            traced = self.tracer.traced(context, batch, layers)
            if traced.courses is not None:
                if layers is not None:  # what did once will mostly do again
                    self._useful = [layers, *(other for other in self._useful if other is not layers)]
                allocation = lay_out(traced.courses[HOST], point=point)
                return Layout(traced=traced, point=point, allocation=allocation, layers=layers)
        raise AssertionError("all layers stand for themselves")

    def use(
        self, layout: Layout, context: ContextParams, batch: Batch, *,
        n_threads: int, repacked: frozenset[str], cpu_features: frozenset[str],
    ) -> tuple[Sequence[int], int]:  # fmt: skip
        """What the graph of a smaller batch writes when it runs in a layout: of each stretch, and of scratch memory."""
        traced, point = layout.traced, point_of(context, batch)
        kind = kind_of(context, batch, layout.layers)
        key = (kind, point, n_threads, repacked, cpu_features)
        if key not in traced.uses:
            lifetimes = traced.pieces[HOST].lifetimes
            if kind == traced.kind and traced.trace.holds_at(point):
                graph, written = traced.graph, written_sizes_at(lifetimes, point)
            else:
                with collection_paused():
                    graph = self.graph(context, batch, None if layout.layers is None else layout.layers.built)
                written = written_sizes(lifetimes, graph)
            work = work_bytes(
                graph, n_threads, repacked=repacked, cpu_features=cpu_features, forms=self.forms, point=point
            )  # fmt: skip
            traced.uses[key] = written, work
        return traced.uses[key]

    def alike(self, name: str) -> Sequence[TensorInfo]:
        """The weights that the named one of a layer stands for, itself included: they differ in their types at most.

        Empty for weights outside of layers or that layers share, and for names that the file does not have.
        """
        il, rest = split_name(name)
        if il is None or il >= self.n_layer or self.h.weights_of:
            return ()
        group = self._alike.get((self.kinds[il], rest))
        if group is None:
            weights = (w for w, kind in zip(self._weights, self.kinds, strict=True) if kind == self.kinds[il])
            group = self._alike[self.kinds[il], rest] = [w[rest] for w in weights if rest in w]
        return group

    def forms(self, name: str, repacked: frozenset[str]) -> frozenset[Form]:
        """The types of these weights, and whether any of each type is `repacked`, any is not."""
        il, rest = split_name(name)
        kind = None if il is None or il >= self.n_layer else self.kinds[il]
        found = self._forms.get((kind, rest, repacked))
        if found is None:
            forms = ((as_known(t.ggml_type), t.name in repacked) for t in self.alike(name))
            found = self._forms[kind, rest, repacked] = frozenset(forms)
        return found

    def choices(self, places: Sequence[Hashable], attempts: Iterable[Attempt]) -> Iterator[Layers]:
        """Which layers to build, for each attempt, where layers of one kind differ in their places too."""
        kinds, likes = (numbered(zip(own, places, strict=True)) for own in (self.kinds, self.likes))
        return (
            leave_out(settled(kinds) if late else kinds, n_before, likes if as_likes else None)
            for n_before, as_likes, late in attempts
        )

    def samples(self, places: Sequence[Hashable]) -> Layers:
        """A layer of each kind and place, for a bound on what all take."""
        return one_of_each(numbered(zip(self.kinds, places, strict=True)))

    @cached_property
    def of_each_kind(self) -> Layers:
        """A layer of each kind, wherever it lies."""
        return self.samples((None,) * self.n_layer)

    def divided(
        self, where: Hashable, places: Callable[[], Sequence[P]], attempts: Iterable[Attempt]
    ) -> tuple[frozenset[P], tuple[Layers | None, ...], Layers]:
        """Of layers that are divided as `where` says: the places, which to build (None: all), and samples."""
        found = self._divided.get(where)
        if found is None:
            if len(self._divided) == REMEMBERED:
                self._divided.clear()
            of_layers = places()
            found = self._divided[where] = (
                frozenset(of_layers), (*self.choices(of_layers, attempts), None), self.samples(of_layers)
            )  # fmt: skip
        return found

    @cached_property
    def parts_of_names(self) -> Mapping[str, tuple[int | None, str]]:
        """The layer of each of the file's tensors, and its name there."""
        return {t.name: parts for t, parts in zip(self.gguf.tensors, self.gguf.split_names, strict=True)}

    @cached_property
    def has_states(self) -> bool:
        """Whether any layer is recurrent."""
        return any(isinstance(cache, RecurrentState) for layer in self.caches for cache in layer)

    @cached_property
    def distinct_caches(self) -> frozenset[LayerCache]:
        """What layers keep, each kind once."""
        return frozenset(chain.from_iterable(self.caches))

    @cached_property
    def _weights(self) -> tuple[Mapping[str, TensorInfo], ...]:
        own = weights_by_layer(self.gguf, self.n_layer)
        return tuple(own[of] for of in self.h.weights_of) or own

    @cached_property
    def likes(self) -> Sequence[int]:
        """A number for each layer that runs: those of one number have the same nodes, the first and the last aside."""
        return alike(self.h, self._weights, self.caches, self.adapters)

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """A number for each layer that runs, as in `likes`; the first and the last have numbers of their own."""
        return kinds_of(self.likes)

    def _likely(self) -> Iterator[Layers | None]:
        """Which layers to build: what has been of use, then the likeliest first, at last None for all."""
        yield from tuple(self._useful)
        for attempt in ATTEMPTS:
            if attempt not in self._chosen:
                self._chosen[attempt] = next(self.choices((None,) * self.n_layer, (attempt,)))
            if self._chosen[attempt] not in self._useful:
                yield self._chosen[attempt]
        yield None


def _show_clamped(graph: Graph) -> None:
    """Clamps as they were: done where the source lies, which the node shows. Source: ggml.c, ggml_clamp."""
    for node in graph.nodes:
        shown = node.src[0] if node.op == "CLAMP" else node.view_src
        if shown is not None:
            node.view_src = shown.view_src or shown
