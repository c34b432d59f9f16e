"""When is each stretch of the compute buffer taken and given back? ggml's walk over a graph, without sizes.

Walking the nodes in order, a tensor's bytes are taken when it is computed and given back when its last reader has run.
Operations that may work in place take over a parent's bytes when nobody else reads them. No size matters to that but
which are equal, so where a graph's sizes are known at several points (`ggufphys.graph.affine`), one walk does for all.

A walk is divided where layers begin, so that what is known of one can stand for others (`layers`).

Source: llama.cpp 0c1e570 ggml/src/ggml-alloc.c, ggml_gallocr_alloc_graph_impl.
"""

from bisect import bisect_right
from collections import Counter
from itertools import chain, pairwise
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.graph.ir import Graph, Tensor

# fmt: off
IN_PLACE: Final = frozenset({  # ggml_op_can_inplace
    "FILL", "SCALE", "DIAG_MASK_ZERO", "DIAG_MASK_INF", "ADD", "ADD_ID", "ADD1", "SUB", "MUL", "DIV", "SQR", "SQRT",
    "LOG", "UNARY", "ROPE", "ROPE_BACK", "SILU_BACK", "RMS_NORM", "RMS_NORM_BACK", "CLAMP", "SOFT_MAX", "SOFT_MAX_BACK",
})
# fmt: on

OLD: Final = 2  # layers that a tensor has lived through before it stands for itself

Role = Tensor | tuple[int, int, int]
"""Who holds a stretch: inputs, what is from before the second layer and what is `OLD` stand for themselves, all else as
how many nodes ago it ran, how many nodes are still to read it and how many views to show it."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What happens to the buffer from one mark of the graph to the next.

    An event is a stretch's number when it is taken, its complement when it is given back; `taken` are the numbers of
    the stretches that are taken here. `held` are those that are in use when it begins, and `roles` who holds them, in
    an order that depends on the roles alone. `constants` are stretches of the graph's constants that nobody but this
    segment still reads.
    """

    events: tuple[int, ...]
    taken: range
    held: tuple[int, ...]
    roles: tuple[Role, ...]
    constants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """When stretches of the buffer are taken and given back; they are numbered in the order in which they are taken.

    First come those of leafs, then those of `segments`: what is in front of the graph's first mark, then one behind
    each mark. `sizes` are bytes, before padding. `places` has the stretch of each of the graph's leafs and nodes, None
    for views and weights. `unread` are stretches of inputs that no node reads, and of idle nodes. `readers` has for
    each stretch of a leaf the first segment that reads it, and is empty for graphs without constants.
    """

    segments: tuple[Segment, ...]
    sizes: tuple[int, ...]
    places: tuple[int | None, ...]
    unread: frozenset[int]
    readers: tuple[int, ...]

    @property
    def n_leafs(self) -> int:
        """How many stretches are taken before the first node runs."""
        return self.segments[0].taken.start


def lifetimes(graph: Graph) -> Lifetimes:
    """When each stretch of the graph's buffer is taken and given back."""
    return _Walk(graph).run()


def apart(graph: Graph) -> Lifetimes:
    """The stretches alone, one for each tensor: what all take together is the same in every order, in place or not."""
    sizes = [leaf.nbytes for leaf in graph.leafs if not leaf.external]
    segments, start = list[Segment](), len(sizes)
    for first, stop in pairwise((0, *graph.marks, len(graph.nodes))):
        sizes += [node.nbytes for node in graph.nodes[first:stop] if node.view_src is None]
        segments.append(Segment((), range(start, len(sizes)), (), (), ()))
        start = len(sizes)
    return Lifetimes(tuple(segments), tuple(sizes), (), frozenset(), ())


class _Walk:
    """The walk over one graph. `alive` says who holds a stretch, `places` also who ever did."""

    __slots__ = (
        "alive", "born", "constants", "events", "graph", "held", "n_children", "n_views", "own_constants", "places",
        "segments", "sizes", "taken",
    )  # fmt: skip

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        nodes = graph.nodes
        self.n_children = dict(Counter(chain.from_iterable([node.src for node in nodes])))  # how many still read it
        self.n_views = dict(Counter([node.view_src for node in nodes if node.view_src is not None]))  # or show it
        self.constants = {leaf for leaf in graph.leafs if is_constant(leaf)} if graph.marks else set[Tensor]()
        self.alive: dict[Tensor, int] = {}
        self.places: dict[Tensor, int] = {}
        self.sizes: list[int] = []
        self.born: list[int] = []  # of each stretch the node that holds it
        self.segments: list[Segment] = []
        # of the segment at hand
        self.events: list[int] = []
        self.taken = 0
        self.held: list[tuple[int, Role]] = []
        self.own_constants: list[int] = []

    def run(self) -> Lifetimes:
        graph, n_children, place, finish = self.graph, self.n_children, self.place, self.finish
        take = self.take
        for leaf in graph.leafs:
            if not leaf.external:
                take(leaf, -1)
        self.events, self.taken = [], len(self.sizes)
        unread = frozenset(place for leaf, place in self.alive.items() if leaf.is_input and leaf not in n_children)
        readers = self.readers()
        marks = [*graph.marks, len(graph.nodes)]
        mark = marks[0]
        for i, node in enumerate(graph.nodes):
            while i == mark:
                self.begin(i)
                mark = marks[len(self.segments)]
            if node.view_src is None:
                if node.op in IN_PLACE:
                    place(node, i)
                else:
                    take(node, i)
            for parent in node.src:
                left = n_children[parent] = n_children[parent] - 1
                if not left and not parent.external:
                    finish(parent)
        self.close()
        places = tuple(map(self.places.get, (*graph.leafs, *graph.nodes)))
        unread |= self.idle()
        return Lifetimes(tuple(self.segments), tuple(self.sizes), places, unread, readers)

    def idle(self) -> frozenset[int]:
        """The stretches of nodes that are laid out alone, and of inputs that only these read."""
        idle = self.graph.idle
        if not idle:
            return frozenset()
        read = {source for node in self.graph.nodes if node not in idle for source in node.src}
        alone = (*idle, *(leaf for leaf in self.graph.leafs if leaf.is_input and leaf not in read))
        return frozenset(place for tensor in alone if (place := self.places.get(tensor)) is not None)

    def readers(self) -> tuple[int, ...]:
        if not self.constants:
            return ()
        first: dict[Tensor, int] = {}
        for i, node in enumerate(self.graph.nodes):
            for source in node.src:
                if source.op == "NONE":
                    first.setdefault(source, i)
        return tuple(bisect_right(self.graph.marks, first.get(leaf, -1)) for leaf in self.places)

    def begin(self, now: int) -> None:
        """Note what is held when the next segment begins with node `now`."""
        self.close()
        marks, begun = self.graph.marks, len(self.segments) - 1
        second = marks[1] if len(marks) > 1 else 0
        old = max(second, marks[begun - OLD] if begun >= OLD else 0)
        themselves: list[tuple[int, Role]] = []
        young: list[tuple[int, int, int, int]] = []
        for tensor, place in self.alive.items():
            born = self.born[place]
            if born < old or tensor.is_input:
                if tensor not in self.constants:
                    themselves.append((place, tensor))
            else:
                young.append((born - now, self.n_children.get(tensor, 0), self.n_views.get(tensor, 0), place))
        themselves.sort(key=_place)
        young.sort()
        self.held = themselves + [(place, (born, children, views)) for born, children, views, place in young]

    def close(self) -> None:
        held, roles = tuple(place for place, _ in self.held), tuple(role for _, role in self.held)
        taken = range(self.taken, len(self.sizes))
        self.segments.append(Segment(tuple(self.events), taken, held, roles, tuple(sorted(self.own_constants))))
        self.events, self.taken, self.own_constants = [], len(self.sizes), []

    def place(self, tensor: Tensor, now: int) -> None:
        """Where a parent is, for what may work in place, or in a stretch of its own."""
        parent = self.replaceable(tensor)
        if parent is None:
            self.take(tensor, now)
            return
        place = self.places[tensor] = self.alive[tensor] = self.leave(parent)
        self.born[place] = now

    def take(self, tensor: Tensor, now: int) -> None:
        sizes, more = self.sizes, self.graph.more
        place = self.places[tensor] = self.alive[tensor] = len(sizes)
        sizes.append(tensor.nbytes + more[tensor] if more and tensor in more else tensor.nbytes)
        self.born.append(now)
        self.events.append(place)

    def replaceable(self, tensor: Tensor) -> Tensor | None:
        """A parent with the same layout whose only reader this tensor is: it may take over the bytes."""
        for parent in tensor.src:
            if (
                self.n_children[parent] == 1
                and parent in self.alive
                and not parent.is_output
                and not self.n_views.get(parent)
                and parent.lies_like(tensor)
            ):
                return parent
        return None

    def finish(self, parent: Tensor) -> None:
        """Its last reader has run."""
        n_views = self.n_views
        if n_views.get(parent):
            return
        shown = parent.view_src
        if shown is not None:
            n_views[shown] -= 1
            if n_views[shown] or self.n_children.get(shown):
                return
            parent = shown
        if parent in self.alive and not parent.is_output:
            self.events.append(~self.leave(parent))

    def leave(self, tensor: Tensor) -> int:
        """The stretch that a tensor holds no longer."""
        place = self.alive.pop(tensor)
        if tensor in self.constants:
            self.own_constants.append(place)
        return place


def is_constant(leaf: Tensor) -> bool:
    """Whether a tensor is neither computed nor filled by the caller, yet lies in the buffer: layers may have such."""
    return leaf.op == "NONE" and not (leaf.external or leaf.is_input)


def _place(held: tuple[int, Role]) -> int:
    return held[0]
