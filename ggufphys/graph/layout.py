"""How does a model's graph lie in the compute buffer, for one way of running it and one batch?

A `Layouts` belongs to one file and makes each graph once: predictions of several quantities share them, and a graph is
built from as few layers as stand for all (`ggufphys.graph.layers`).
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from ggufphys.arch import ArchRule
from ggufphys.arch.caches import RecurrentState
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.graph.alloc import Allocation, allocate, side_by_side
from ggufphys.graph.batch import Batch
from ggufphys.graph.blocks import Adapters, Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.layers import (
    Layers,
    has_constants,
    layer_kinds,
    leave_out,
    split_name,
    stands_for_all,
    weights_by_layer,
)
from ggufphys.graph.models import build_of
from ggufphys.hparams import HParams
from ggufphys.keys import Keys
from ggufphys.params import ContextParams

# How to choose which layers to build, as (layers in a step before the one it leads to, period), the likeliest first.
ATTEMPTS: Final = ((1, 1), (1, 2), (1, 4), (1, 3), (2, 1), (1, 5))
REMEMBERED: Final = 4  # layouts: more than one prediction looks at


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A graph, where its tensors lie, and which layers it was built from (None: all)."""

    graph: Graph
    allocation: Allocation
    layers: tuple[int, ...] | None


class Layouts:
    """The graphs of one model and their layouts; LoRA's `adapters` put more nodes into the graphs."""

    def __init__(self, gguf: GGUFFile, h: HParams, rule: ArchRule, adapters: Adapters | None = None) -> None:
        self.h = h
        self.keys = Keys(gguf, h.arch)
        self.tensors = gguf.tensors_by_name
        self.adapters = adapters or {}
        self.caches = rule.layers(h)
        self.lone_prompt = rule.lone_prompt
        self._weight_tensors: dict[str, Tensor] = {}
        self._alike: dict[tuple[int, str], list[TensorInfo]] = {}
        self._made: dict[tuple[ContextParams, Batch], Layout] = {}
        self.attempts: dict[Hashable, int] = {}  # which of `choices` has been of use, by what they were made for
        self._bounds: dict[tuple[ContextParams, Batch], tuple[int, int]] = {}
        self._kept: tuple[tuple[ContextParams, Batch, Sequence[int] | None], Graph] | None = None

    def graph(self, context: ContextParams, batch: Batch, layers: Sequence[int] | None = None) -> Graph:
        """The architecture's graph, of all layers unless told; the generic one, without adapters, if there is none."""
        builder = Builder(
            self.h, self.keys, self.tensors, self.caches, context, batch, self.adapters,
            layers=layers, weights=self._weight_tensors,
        )  # fmt: skip
        return build_of(self.h.arch)(builder)

    def kept_graph(self, context: ContextParams, batch: Batch, layers: Sequence[int] | None = None) -> Graph:
        """The same, made once as long as nobody asks for another: for a question of every prediction."""
        key = (context, batch, layers)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.graph(context, batch, layers)
        return self._kept[1]

    def layout(self, context: ContextParams, batch: Batch) -> Layout:
        """The graph of one batch and its layout, as of all layers."""
        made = self._made.get((context, batch))
        if made is None:
            if len(self._made) == REMEMBERED:
                self._made.clear()
            made = self._made[context, batch] = self._lay_out(context, batch)
        return made

    def at_most(self, context: ContextParams, batch: Batch) -> int:
        """Bytes that the layout cannot exceed: all tensors side by side, for this context and any shorter one.

        A bound for small batches that costs nothing in all predictions but the first: it is worked out for a context
        of at least the trained length, since no tensor is smaller in a longer one.
        """
        key = (replace(context, n_ctx=0, n_ctx_seq=0), batch)
        longest, bound = self._bounds.get(key, (0, 0))
        if context.n_ctx_seq > longest:
            longest = max(2 * context.n_ctx_seq, self.h.n_ctx_train)
            longer = replace(context, n_ctx=longest * context.n_stream, n_ctx_seq=longest)
            layers = self._choices[0]
            bound = side_by_side(self.graph(longer, batch, layers.built), self.h.n_layer - len(layers.built))
            self._bounds[key] = longest, bound
        return bound

    def _lay_out(self, context: ContextParams, batch: Batch) -> Layout:
        for layers in tuple(self._choices):
            graph = self.graph(context, batch, layers.built)
            if layers.gaps and has_constants(graph):
                break
            allocation = allocate(graph)
            if stands_for_all(layers, graph, allocation):
                self._choices.sort(key=lambda choice: choice is not layers)  # what did once will mostly do again
                return Layout(graph=graph, allocation=allocation, layers=layers.built)
        graph = self.graph(context, batch)
        return Layout(graph=graph, allocation=allocate(graph), layers=None)

    def alike(self, name: str) -> Sequence[TensorInfo]:
        """The weights that the named one of a layer stands for, itself included: they differ in their types at most.

        Empty for weights outside of layers, and for names that the file does not have.
        """
        il, rest = split_name(name)
        if il is None or il >= self.h.n_layer:
            return ()
        group = self._alike.get((self.kinds[il], rest))
        if group is None:
            weights = (w for w, kind in zip(self._weights, self.kinds, strict=True) if kind == self.kinds[il])
            group = self._alike[self.kinds[il], rest] = [w[rest] for w in weights if rest in w]
        return group

    def choices(self, places: Sequence[Hashable], attempts: Iterable[tuple[int, int]]) -> Iterator[Layers]:
        """Which layers to build, for each attempt, where layers of one kind differ in their places too."""
        for n_before, period in attempts:
            phases = (il % period for il in range(self.h.n_layer))
            yield leave_out(_numbered(zip(self.kinds, places, phases, strict=True)), n_before)

    @cached_property
    def has_states(self) -> bool:
        """Whether any layer is recurrent."""
        return any(isinstance(cache, RecurrentState) for layer in self.caches for cache in layer)

    @cached_property
    def _weights(self) -> tuple[Mapping[str, TensorInfo], ...]:
        return weights_by_layer(self.tensors.values(), self.h.n_layer)

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """A number for each of the trunk's layers: those of one number have the same nodes."""
        return layer_kinds(self.h, self._weights, self.caches, self.adapters)

    @cached_property
    def _choices(self) -> list[Layers]:
        """Which layers to build: the likeliest first, but for what has been of use."""
        return list(self.choices((None,) * self.h.n_layer, ATTEMPTS))


def _numbered(kinds: Iterable[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(kind, len(numbers)) for kind in kinds]
