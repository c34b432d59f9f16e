"""In which order does Vulkan run the nodes of a split? As many as possible that do not wait for each other.

It takes the first node that is left and, of those not far behind it, all that depend on none that waits; groups that it
computes in one go stay together. Views come behind the others.

Source: llama.cpp 0c1e570 ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_vk_graph_optimize, ggml_vk_can_fuse_unary_mul;
ggml-vulkan-types.h (the groups); ggml/src/ggml.c, ggml_can_fuse_subgraph_ext.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Final

from ggufphys.graph.devices.backends.order import Order, are_read_inside, bytes_of
from ggufphys.graph.ir import Tensor
from ggufphys.graph.strides import is_contiguous_from

AHEAD: Final = 20  # NUM_TO_CHECK
NEAR: Final = 15  # how far behind a node the last of its group is looked for
EMPTY: Final = frozenset({"NONE", "RESHAPE", "TRANSPOSE", "VIEW", "PERMUTE"})
_LEAFS: Final = frozenset({"NONE", "COPY"})  # a copy from another device has no operation either

Group = tuple[str, ...]


def _group(text: str) -> Group:
    return tuple(text.split())


# What chooses experts; its sources are kept until its end, or that of a scale behind it.
_TOP_K_MOE: Final = (
    _group("SOFT_MAX RESHAPE ARGSORT VIEW GET_ROWS RESHAPE SUM_ROWS CLAMP DIV RESHAPE"),
    _group("UNARY RESHAPE ADD ARGSORT VIEW GET_ROWS RESHAPE SUM_ROWS CLAMP DIV RESHAPE"),
    _group("UNARY SQRT RESHAPE ADD ARGSORT VIEW GET_ROWS RESHAPE SUM_ROWS CLAMP DIV RESHAPE"),
    _group("SOFT_MAX RESHAPE ARGSORT VIEW GET_ROWS"),
    _group("ARGSORT VIEW GET_ROWS RESHAPE SOFT_MAX RESHAPE"),
)
_QSA: Final = _group("GET_ROWS PERMUTE CONT CPY RESHAPE ADD TOP_K")
_HC_POST: Final = _group("SCALE UNARY SCALE DSV4_HC_POST")
_TOGETHER: Final = (
    _group("MUL SIN SQR MUL ADD"),
    _QSA,
    _group("RMS_NORM MUL ADD MUL"),
    _group("RMS_NORM MUL ADD"),
    _group("RMS_NORM MUL ROPE VIEW SET_ROWS"),
    _group("RMS_NORM VIEW SET_ROWS"),
    _group("ROPE VIEW SET_ROWS"),
)
_GROUPS: Final = (*_TOP_K_MOE, *_TOGETHER, _HC_POST)
_BY_FIRST: Final = {first: [group for group in _GROUPS if group[0] == first] for first in {g[0] for g in _GROUPS}}

# A node that only waits for the one taken last, if nothing else lies between them.
_FOLLOWS: Final = frozenset({("RMS_NORM", "MUL"), ("UNARY", "MUL")})
# A node that only waits for the one taken last, right behind it.
_FOLLOWS_AT_ONCE: Final = frozenset({
    ("MUL_MAT", "ADD"), ("MUL_MAT_ID", "ADD_ID"), ("MUL_MAT_ID", "MUL"), ("ADD", "ADD"), ("SSM_CONV", "ADD"),
    ("SSM_CONV", "UNARY"),
})  # fmt: skip
# Two nodes in a row, and the third that is put forward behind them if its other source is there.
_THIRD: Final = {("MUL_MAT_ID", "ADD_ID"): "MUL", ("MUL_MAT", "ADD"): "ADD"}
_GATES: Final = frozenset({"gelu", "sigmoid", "silu", "softplus"})  # ggml_vk_unary_mul_op_index


def reorder(nodes: Sequence[Tensor], uses: Mapping[Tensor, int]) -> Order:
    """The order of a split's nodes; `uses` counts each tensor as a source in the whole graph."""
    return _Walk(nodes, uses).run()


class _Walk:
    def __init__(self, nodes: Sequence[Tensor], uses: Mapping[Tensor, int]) -> None:
        self.nodes = nodes
        self.uses = uses
        self.ops = [node.op for node in nodes]
        self.empty = [op in EMPTY for op in self.ops]
        self.waits_for = list(_dependencies(nodes, self.empty))
        self.starts = _starts(self.ops)
        self.qsa = [start for start, groups in self.starts.items() if _QSA in groups]
        self.waiting = list(map(len, self.waits_for))  # for how many that have no place
        self.waited_for: list[list[int]] = [[] for _ in nodes]  # and by whom
        for j, others in enumerate(self.waits_for):
            for c in others:
                self.waited_for[c].append(j)
        self.used = [False] * len(nodes)
        self.done: set[Tensor] = set()  # nodes that have their place
        self.first = 0  # that has none
        self.positions: list[int] = []
        self.kept: dict[int, list[Tensor]] = {}

    def run(self) -> Order:
        while self.first < len(self.nodes):
            group = self.group_at(self.first)
            if group is None:
                self.place(self.together())
            else:
                self.keep(group)
                self.place(range(self.first, self.first + len(group)))
        return Order(self.positions, self.kept)

    def place(self, positions: Sequence[int]) -> None:
        for i in positions:
            self.positions.append(i)
            self.done.add(self.nodes[i])
            self.use(i)
        while self.first < len(self.nodes) and self.used[self.first]:
            self.first += 1

    def use(self, i: int) -> None:
        """The node is to be placed."""
        if not self.used[i]:
            self.used[i] = True
            for j in self.waited_for[i]:
                self.waiting[j] -= 1

    def group_at(self, start: int) -> Group | None:
        """The first of the groups that begins here, none of its nodes placed before."""
        for group in self.starts.get(start, ()):
            if not any(self.used[start : start + len(group)]):
                return group
        return None

    def keep(self, group: Group) -> None:
        """Hold what a group that is one operation reads until it is done."""
        if group not in _TOP_K_MOE and group != _HC_POST:
            return
        last = self.first + len(group) - 1
        own = self.nodes[self.first : last + 1]
        if group in _TOP_K_MOE and last + 1 < len(self.nodes) and self.ops[last + 1] == "SCALE":
            last += 1
        kept = dict.fromkeys(self.kept.get(last, ()))
        inner: set[Tensor] = set()
        for node in own:
            kept.update(dict.fromkeys(source for source in node.src if source not in inner))
            inner.add(node)
        self.kept[last] = list(kept)

    def together(self) -> list[int]:
        """The first node left, and those of the next ones that wait for none that is left."""
        taken, used, empty, waiting = [self.first], self.used, self.empty, self.waiting
        following = range(self.first + 1, min(self.first + AHEAD, len(self.nodes)))
        for j in following:
            if used[j] or empty[j] or (waiting[j] and not self.follows(j, taken[-1])):
                continue
            if not self.in_group(j):
                taken.append(j)
                for put_forward in _PUT_FORWARD.get(self.ops[j], ()):
                    put_forward(self, j, taken)
        if self.ops[taken[-1]] != "ADD":  # which the next one may go with
            for j in following:
                if used[j] or not empty[j]:
                    continue
                if not waiting[j] or all(used[c] or c in taken for c in self.waits_for[j]):
                    taken.append(j)
        return taken

    def in_group(self, j: int) -> bool:
        """Does a group begin here? Those of QSA are not to be taken apart anywhere."""
        if j in self.starts and self.group_at(j) is not None:
            return True
        return bool(self.qsa) and any(
            start < j < start + len(_QSA) and not any(self.used[start : start + len(_QSA)]) for start in self.qsa
        )

    def follows(self, j: int, last: int) -> bool:
        """Whether a node waits for none that is left but the one taken last, which it follows."""
        for c in self.waits_for[j]:
            if self.used[c]:
                continue
            pair = self.ops[c], self.ops[j]
            if c != last:
                return False
            if pair in _FOLLOWS and all(self.used[i] or self.empty[i] for i in range(c + 1, j)):
                continue
            if not (j == c + 1 and pair in _FOLLOWS_AT_ONCE):
                return False
        return True

    def near(self, j: int, op: str) -> Iterator[int]:
        return (k for k in range(j + 1, min(j + NEAR, len(self.nodes))) if self.ops[k] == op)

    def pull(self, k: int, taken: list[int]) -> None:
        taken.append(k)
        self.use(k)

    def store_behind(self, j: int, taken: list[int]) -> None:
        """A norm's or a rotation's result is written to the cache at once: ROPE or RMS_NORM, VIEW, SET_ROWS."""
        nodes = self.nodes
        if (self.ops[j - 1], self.ops[j]) == ("RMS_NORM", "MUL"):
            for k in self.near(j, "ROPE"):
                if nodes[k].src[0] is nodes[j] and all(source.op in _LEAFS for source in nodes[k].src[1:]):
                    self.pull(k, taken)
                    j = k
                    break
        if self.ops[j] not in ("ROPE", "RMS_NORM"):
            return
        view = next((k for k in self.near(j, "VIEW") if not self.used[k] and nodes[k].src[0] is nodes[j]), None)
        if view is None:
            return
        stop = min(j + NEAR, len(nodes))
        rows = next(
            (
                k
                for k in range(view + 1, stop)
                if not self.used[k] and self.ops[k] == "SET_ROWS" and nodes[k].src[0] is nodes[view]
            ),
            None,
        )
        if rows is None or not self.is_own(j, view, rows):
            return
        if not any(j < c != view and not (self.used[c] or self.empty[c]) for c in self.waits_for[rows]):
            self.pull(view, taken)
            self.pull(rows, taken)

    def is_own(self, j: int, view: int, rows: int) -> bool:
        """Does nobody else read what lies between?"""
        nodes = self.nodes
        return are_read_inside([nodes[j], nodes[view], nodes[rows]], {nodes[rows]}, self.uses)

    def is_there(self, source: Tensor) -> bool:
        """A leaf, or computed already."""
        return source.op in _LEAFS or source in self.done

    def third_behind(self, j: int, taken: list[int]) -> None:
        """A sum's or product's next one: MUL_MAT_ID, ADD_ID, MUL; MUL_MAT, ADD, ADD."""
        wanted = _THIRD.get((self.ops[j - 1], self.ops[j]))
        if wanted is None:
            return
        for k in self.near(j, wanted):
            sources = self.nodes[k].src
            if sources[0] is self.nodes[j] and self.is_there(sources[1]):
                self.pull(k, taken)
                break

    def activation_behind(self, j: int, taken: list[int]) -> None:
        """SSM_CONV, ADD, UNARY."""
        if (self.ops[j - 1], self.ops[j]) == ("SSM_CONV", "ADD"):
            for k in self.near(j, "UNARY"):
                if self.nodes[k].src[0] is self.nodes[j]:
                    self.pull(k, taken)
                    break

    def product_behind(self, j: int, taken: list[int]) -> None:
        """An activation and the product that it gates."""
        node = self.nodes[j]
        for k in self.near(j, "MUL"):
            product = self.nodes[k]
            if node not in product.src:
                continue
            other = product.src[1] if product.src[0] is node else product.src[0]
            if self.is_there(other) and _is_gated(node, product, other):
                self.pull(k, taken)
                break


# What may be put forward behind a node that is taken, by its operation.
_PUT_FORWARD: Final = {
    **dict.fromkeys(("MUL", "ROPE", "RMS_NORM"), (_Walk.store_behind,)),
    "ADD_ID": (_Walk.third_behind,),
    "ADD": (_Walk.third_behind, _Walk.activation_behind),
    "UNARY": (_Walk.product_behind,),
}


def _is_gated(gate: Tensor, product: Tensor, other: Tensor) -> bool:
    """ggml_vk_can_fuse_unary_mul."""
    if gate.params[0] not in _GATES or not gate.type == product.type == other.type:
        return False
    if not (is_contiguous_from(1, other) and is_contiguous_from(1, gate.src[0])):
        return False
    small, large = (other, gate) if product.src[0] is gate else (gate, product.src[0])
    return all(n % m == 0 for m, n in zip(small.ne, large.ne, strict=True))


def _starts(ops: Sequence[str]) -> Mapping[int, Sequence[Group]]:
    """The groups that begin at each position, in the order in which they are looked for."""
    found: dict[int, list[Group]] = {}
    for i, op in enumerate(ops):
        for group in _BY_FIRST.get(op, ()):
            if tuple(ops[i : i + len(group)]) == group:
                found.setdefault(i, []).append(group)
    return found


def _dependencies(nodes: Sequence[Tensor], empty: Sequence[bool]) -> Iterator[Sequence[int]]:
    """For each node the nearest ones in front of it that must run first (is_src_of).

    These have the same bytes, computed or showed what it reads, or read what it writes. A view waits for what has its
    source's bytes alone, and for a view only who reads just that.
    """
    base_of: dict[Tensor, Hashable] = {}
    showing: dict[Hashable, list[int]] = {}  # nodes by whose bytes they have
    reading: dict[Hashable, list[int]] = {}  # and by whose they read
    for j, node in enumerate(nodes):
        base = base_of[node] = bytes_of(node)
        own = showing.setdefault(base, [])
        found = own[:]
        if not empty[j]:
            sources = node.src
            found += reading.get(base, ())
            for source in sources:
                read = base_of.get(source)
                if read is None:
                    read = base_of[source] = bytes_of(source)
                found += [c for c in showing.get(read, ()) if not empty[c] or nodes[c] in sources]
                reading.setdefault(read, []).append(j)
        own.append(j)
        first = j - AHEAD
        yield [c for c in found if c >= first]
