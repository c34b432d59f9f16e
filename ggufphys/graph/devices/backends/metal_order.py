"""In which order does Metal run the nodes of a split? As many as possible that touch no common bytes, by default.

When a node must wait for those that run, the next 64 are looked through for some that need not wait, and that nothing
left behind stands in the way of. What is computed in one go stays together, and its sources are kept until its end.

Source: llama.cpp 0c1e570 ggml/src/ggml-metal/ggml-metal-common.cpp, ggml_graph_optimize,
ggml_metal_graph_optimize_reorder, ggml_mem_ranges_check; ggml-metal.cpp, ggml_backend_metal_graph_optimize.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from ggufphys.graph.devices.backends.metal_fusion import longest_by_name, n_together
from ggufphys.graph.devices.backends.order import VIEWS, Order, bytes_of
from ggufphys.graph.ir import Tensor

AHEAD: Final = 64  # N_FORWARD
ALIGNMENT: Final = 32
_STATES: Final = frozenset("rsp")
_PARTS: Final[Mapping[object, int]] = {"k": 0, "v": 1, "r": 0, "s": 1, "p": 2}  # in which order a layer's lie
# Nodes that may be put forward, and that others may be put in front of.
SAFE: Final = VIEWS | {
    "NONE", "MUL_MAT", "MUL_MAT_ID", "ROPE", "NORM", "RMS_NORM", "GROUP_NORM", "L2_NORM", "SUM_ROWS", "SSM_CONV",
    "SSM_SCAN", "CLAMP", "TRI", "DIAG", "MUL", "ADD", "SUB", "DIV", "GLU", "SCALE", "UNARY", "GET_ROWS", "SET_ROWS",
    "SET", "CPY", "CONT", "REPEAT",
}  # fmt: skip


class _Ranges:
    """Whose bytes some nodes read and write."""

    __slots__ = ("read", "written")

    def __init__(self) -> None:
        self.read: set[Hashable] = set()
        self.written: set[Hashable] = set()

    def add(self, group: "_Group") -> None:
        self.read |= group.read
        self.written |= group.written

    def clash(self, group: "_Group") -> bool:
        """Must the group wait for these nodes, or come behind them?"""
        written = self.written
        return not (written.isdisjoint(group.touched_reading) and written.isdisjoint(group.touched_writing)) or not (
            self.read.isdisjoint(group.touched_writing)
        )


class _Group:
    """Nodes that stay together, by their positions. What ends where another cache begins touches that, too."""

    __slots__ = ("is_empty", "is_safe", "positions", "read", "touched_reading", "touched_writing", "written")

    def __init__(self, nodes: Sequence[Tensor], positions: range, behind: Mapping[Hashable, Hashable]) -> None:
        own = nodes[positions.start : positions.stop]
        self.positions = positions
        self.is_empty = own[0].op in VIEWS
        self.is_safe = own[0].op in SAFE
        self.read = frozenset(bytes_of(source) for node in own for source in node.src if source not in own)
        self.written = frozenset(map(bytes_of, own))
        self.touched_reading = self.read.union(behind[base] for base in self.read if base in behind)
        self.touched_writing = self.written.union(behind[base] for base in self.written if base in behind)


def reorder(nodes: Sequence[Tensor], uses: Mapping[Tensor, int]) -> Order:
    """The order of a split's nodes; `uses` counts each tensor as a source in the whole graph."""
    groups = list(_groups(nodes, uses))
    return Order([i for group in _in_order(groups) for i in group.positions], _kept(nodes))


def _groups(nodes: Sequence[Tensor], uses: Mapping[Tensor, int]) -> Iterator[_Group]:
    i, behind = 0, _behind(nodes)
    while i < len(nodes):
        stop = min(i + n_together(nodes, i, uses), len(nodes))
        yield _Group(nodes, range(i, stop), behind)
        i = stop


def _behind(nodes: Sequence[Tensor]) -> Mapping[Hashable, Hashable]:
    """For each cache the one that begins right where it ends: those of a kind lie in one buffer, layer by layer."""
    kinds: dict[Hashable, dict[Hashable, tuple[int, int, int]]] = {}
    for node in nodes:
        for tensor in (node, *node.src):
            base = tensor.view_src or tensor
            if base.external and not base.name:
                part, il, *kind = base.params
                assert isinstance(il, int), "a cache says whose it is"
                if part in _PARTS:
                    of_kind = kinds.setdefault((part in _STATES, *kind), {})
                    of_kind[bytes_of(base)] = (il, _PARTS[part], base.nbytes)
    behind: dict[Hashable, Hashable] = {}
    for of_kind in kinds.values():
        ordered = sorted(of_kind.items(), key=lambda item: item[1][:2])
        for (one, (*_, nbytes)), (other, _) in pairwise(ordered):
            if nbytes % ALIGNMENT == 0:
                behind[one] = other
    return behind


def _in_order(groups: Sequence[_Group]) -> Iterator[_Group]:
    used = [False] * len(groups)
    running = _Ranges()
    for i, group in enumerate(groups):
        if used[i]:
            continue
        if not group.is_empty and running.clash(group):
            waiting = _Ranges()
            waiting.add(group)
            for j in range(i + 1, min(i + AHEAD, len(groups))):
                if used[j]:
                    continue
                other = groups[j]
                if not other.is_safe:
                    break
                if (other.is_empty or not running.clash(other)) and not waiting.clash(other):
                    running.add(other)
                    used[j] = True
                    yield other
                else:
                    waiting.add(other)
            running = _Ranges()
        running.add(group)
        yield group


def _kept(nodes: Sequence[Tensor]) -> Mapping[int, Sequence[Tensor]]:
    """What is read by nodes that look like a group, until the last of them has run."""
    ops = [node.op for node in nodes]
    kept: dict[int, Sequence[Tensor]] = {}
    i = 0
    while i < len(nodes):
        n_nodes = longest_by_name(ops, i)
        if n_nodes:
            group = nodes[i : i + n_nodes]
            seen: dict[Tensor, bool] = {}  # whether it is from outside
            for node in group:
                for source in node.src:
                    seen.setdefault(source, True)
                seen.setdefault(node, False)
            kept[i + n_nodes - 1] = [tensor for tensor, is_outside in seen.items() if is_outside]
        i += n_nodes or 1
    return kept
