"""Which layers of a deep model must be built to know its compute buffer? Far from all: most repeat.

Layers of one *kind* have the same nodes. Where a layer begins, tensors of earlier ones hold bytes of the buffer: by who
they are (`Segment.roles`), not by where they lie, that is a state, and a *step*, the kinds of the last layer and of the
next one, takes it to the next state whatever came before. So a stretch of layers may be left out when

* it ends with a layer of the same kind as the one before it, so that the seam is a step like any other;
* each of its steps runs before it, where its effect is seen;
* a layer like each of its own runs again behind it, so that no tensor that many layers read (a mask, positions) is
  given back too early: one of its kind, or the last one, which may be like them but for being the last;
* those effects, one after the other, lead from the state at the seam back to it: `course_of_all` checks that.

What all layers take and give back is then known without having built them, and is laid out as if they had been: where
bytes lie need not repeat.

ggml adds a tensor to the graph when something is expanded that depends on it, so a layer's last nodes come with the
next layer's first. A layer that expands nothing leaves its nodes to the one after: steps then span more layers
(`n_before`). Where the check fails, all must be built.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise

from ggufphys.arch import LayerCache
from ggufphys.frozen import dataclass, fields
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.graph.allocating.course import Course, in_order
from ggufphys.graph.allocating.lifetimes import OLD, Lifetimes, Role
from ggufphys.graph.building.construction import Adapters
from ggufphys.hparams.hparams import HParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """A number for each layer's kind, the layers to build, and the stretches between them that are left out.

    `n_before` are the layers in a step before the one it leads to.
    """

    kinds: tuple[int, ...]
    n_before: int
    built: tuple[int, ...]
    gaps: tuple[range, ...]

    @property
    def stand_for(self) -> tuple[int, ...]:
        """How many of the layers left out each of those that were built stands for, the first of its kind for all."""
        left = Counter(self.kinds[il] for gap in self.gaps for il in gap)
        return tuple(left.pop(self.kinds[il], 0) for il in self.built)

    def step(self, il: int) -> tuple[int, ...]:
        """The kinds of layer `il` and of those before it."""
        return self.kinds[max(0, il - self.n_before) : il + 1]

    def part(self, first: int, last: int) -> "Layers":
        """The layers from `first` to `last` alone, numbered from 0."""
        gaps = (range(g.start - first, g.stop - first) for g in self.gaps if first <= g.start and g.stop <= last + 1)
        built = tuple(il - first for il in self.built if first <= il <= last)
        return Layers(kinds=self.kinds[first : last + 1], n_before=self.n_before, built=built, gaps=tuple(gaps))


def weights_by_layer(gguf: GGUFFile, n_layer: int) -> tuple[Mapping[str, TensorInfo], ...]:
    """The weights of each of the first layers, by their names without `blk.N.`."""
    weights: tuple[dict[str, TensorInfo], ...] = tuple({} for _ in range(n_layer))
    for tensor, (il, name) in zip(gguf.tensors, gguf.split_names, strict=True):
        if il is not None and il < n_layer:
            weights[il][name] = tensor
    return weights


def alike(
    h: HParams,
    weights: Sequence[Mapping[str, TensorInfo]],
    caches: Sequence[tuple[LayerCache, ...]],
    adapters: Adapters,
) -> list[int]:
    """Number these layers: equal weights but for their types, adapters, hyperparameters and caches.

    Layers that share weights differ in the types of these too: nothing that a weight's name tells says which of them it
    is used in.
    """
    values = [getattr(h, field.name) for field in fields(h) if field.name != "weights_of"]
    per_layer = [v for v in values if isinstance(v, tuple) and len(v) == h.n_layer_all]
    likes = []
    for il in range(len(weights)):
        shapes = frozenset((name, w.ne, w.ggml_type if h.weights_of else None) for name, w in weights[il].items())
        deltas = frozenset(
            (name, tuple((a.ne, b.ne) for a, b in adapters[tensor.name]))
            for name, tensor in (weights[il].items() if adapters else ())
            if tensor.name in adapters
        )
        likes.append((shapes, deltas, tuple(v[il] for v in per_layer), caches[il], h.is_moe_step(il)))
    return numbered(likes)


def kinds_of(likes: Sequence[int]) -> tuple[int, ...]:
    """Number the kinds of layers: those that are alike, but the first and the last are kinds of their own."""
    last = len(likes) - 1
    return tuple(numbered((like, il == 0, il == last) for il, like in enumerate(likes)))


def numbered(of_layers: Iterable[Hashable]) -> list[int]:
    """A number for each layer, equal where what is said of it is."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(of_layer, len(numbers)) for of_layer in of_layers]


def leave_out(kinds: Sequence[int], n_before: int, likes: Sequence[int] | None = None) -> Layers:
    """Find the stretches that may be left out, as far as kinds tell; `likes` says which layers read the same.

    Without it, only those behind the same layers do.
    """
    n = len(kinds)
    steps = [tuple(kinds[max(0, il - n_before) : il + 1]) for il in range(n)]
    readers: Sequence[Hashable] = steps if likes is None else likes
    last = {reader: il for il, reader in enumerate(readers)}
    seams = [step[-n_before:] for step in steps]
    seen: set[tuple[int, ...]] = set()
    gaps = []
    il = 0
    while il < n:
        start = il
        while il < n and steps[il] in seen and il < last[readers[il]]:
            il += 1
        if gap := _longest_gap(range(start, il), seams):
            gaps.append(gap)
        if il < n:
            seen.add(steps[il])
            if il == last[readers[il]]:  # what it is the last to read is given back: none has begun like that yet
                seen.clear()
            il += 1
    left_out = {il for gap in gaps for il in gap}
    built = tuple(il for il in range(n) if il not in left_out)
    return Layers(kinds=tuple(kinds), n_before=n_before, built=built, gaps=tuple(gaps))


def _longest_gap(repeated: range, seams: Sequence[Hashable]) -> range:
    """The longest stretch of these layers that ends like the layer in front of it."""
    longest = range(0)
    for start in repeated:
        stops = (il + 1 for il in reversed(repeated[start - repeated.start :]) if seams[il] == seams[start - 1])
        longest = max(longest, range(start, next(stops, start)), key=len)
    return longest


def settled(kinds: Sequence[int]) -> list[int]:
    """Other numbers, which differ until `OLD` layers behind the first layer of the last kind that comes.

    A layer may be the first of its kind to compute what all later ones read: it then holds for those, not before.
    """
    numbers: dict[tuple[int, int], int] = {}
    seen: set[int] = set()
    found = []
    for il, kind in enumerate(kinds):
        if il > OLD:
            seen.add(kinds[il - OLD - 1])
        found.append(numbers.setdefault((kind, len(seen)), len(numbers)))
    return found


def one_of_each(kinds: Sequence[int]) -> Layers:
    """The first layer of each kind: not how all lie, but how much the others can add (`alloc.SideBySide`)."""
    first: dict[int, int] = {}
    for il, kind in enumerate(kinds):
        first.setdefault(kind, il)
    built = tuple(first.values())
    gaps = (range(il + 1, following) for il, following in pairwise((*built, len(kinds))) if following > il + 1)
    return Layers(kinds=tuple(kinds), n_before=1, built=built, gaps=tuple(gaps))


def expands_in_time(layers: Layers, marks: Sequence[int]) -> bool:
    """Whether no node comes later than with the layers of a step."""
    waiting = [end == start for start, end in pairwise(marks)]  # layers that expanded nothing
    return not any(all(waiting[i : i + layers.n_before]) for i in range(len(waiting)))


def course_of_all(layers: Layers, lifetimes: Lifetimes) -> Course | None:
    """What happens to the buffer with all layers, read off those that were built; None where these do not tell."""
    if not layers.gaps:
        return in_order(lifetimes)
    segments = lifetimes.segments
    of_layer = {il: number for number, il in enumerate(layers.built, 1)}
    effects: dict[tuple[tuple[Role, ...], tuple[int, ...]], int] = {}
    for il in layers.built[:-1]:
        number = of_layer[il]
        # The first counts: a late one may also give back what no layer reads any more, and that has no way back.
        first = effects.setdefault((segments[number].roles, layers.step(il)), number)
        same_end = segments[first + 1].roles == segments[number + 1].roles
        if same_end and len(segments[first].taken) != len(segments[number].taken):
            return None
    for gap in layers.gaps:
        at_seam = roles = segments[of_layer[gap.stop]].roles
        for il in gap:
            known = effects.get((roles, layers.step(il)))
            if known is None:
                return None
            of_layer[il] = known
            roles = segments[known + 1].roles
        if roles != at_seam:
            return None
    leafs, constants = _constants(layers, lifetimes, of_layer)
    order = sorted(of_layer)
    return Course(
        lifetimes,
        (0, *(of_layer[il] for il in order)),
        leafs,
        (segments[0].constants, *(constants.get(il, ()) for il in order)),
    )


def _constants(
    layers: Layers, lifetimes: Lifetimes, of_layer: Mapping[int, int]
) -> tuple[tuple[int, ...], Mapping[int, tuple[int, ...]]]:
    """All leafs, and where the constants of each layer are among them.

    Those of layers that are left out come behind all that is read in front of the gap.
    """
    own = {il: lifetimes.segments[number].constants for il, number in of_layer.items()}
    if not any(own.values()):
        return tuple(range(lifetimes.n_leafs)), {}
    ahead: dict[int, list[tuple[int, int | None]]] = {}
    for gap in layers.gaps:
        read_before = (leaf for leaf, reader in enumerate(lifetimes.readers) if reader < of_layer[gap.stop])
        ahead.setdefault(max(read_before, default=-1), []).extend((leaf, il) for il in gap for leaf in own[il])
    leafs = ahead.pop(-1, [])
    for leaf in range(lifetimes.n_leafs):
        leafs += [(leaf, None), *ahead.get(leaf, ())]
    positions = {leaf: i for i, leaf in enumerate(leafs)}
    left_out = {il for gap in layers.gaps for il in gap}
    constants = {
        il: tuple(positions[leaf, il if il in left_out else None] for leaf in leafs_of) for il, leafs_of in own.items()
    }
    return tuple(leaf for leaf, _ in leafs), constants
