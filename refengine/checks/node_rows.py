"""Where do the engine's nodes and llama.cpp's differ? The same graph computed by both, node by node in step."""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import GGMLType
from ggufphys.graph.ir import Shape, Tensor
from refengine.arrays import Array
from refengine.blocks import F32
from refengine.model import Model
from refengine.peers.llama_logits import TIMEOUT_S, LlamaRequest
from refengine.peers.llama_nodes import LlamaNode, LlamaNodes
from refengine.quant.convert import to_f32

PIECE: Final = 1 << 20  # elements that are compared at a time

_LAYER: Final = re.compile(r"(?:-|_l|blk\.)(\d+)(?:\.\S+)?(?: \(.*\))?$")
_UNNAMED: Final = re.compile(r"node_\d+(?: \(.*\))?$")
_INTEGERS: Final = frozenset({GGMLType.I8, GGMLType.I16, GGMLType.I32, GGMLType.I64})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a node takes from: a weight, an input, a cache, or another node by the name that llama.cpp gave it."""

    name: str
    type: str
    ne: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node of one batch: NMSE to llama.cpp's, of its own doing (`alone`) and with all before it (`carried`).

    Of whole numbers (the order of experts) it is the share that differs. `layer` is None outside of the layers.
    `is_exact`: by itself it is bit for bit llama.cpp's.
    """

    batch: int
    index: int
    name: str
    op: str
    layer: int | None
    ne: Shape
    type: str
    sources: tuple[Source, ...]
    alone: float
    carried: float
    is_exact: bool
    buffer: str  # in which llama.cpp's result lies: CPU, or a device's name


def compare_nodes(model: Model, request: LlamaRequest, *, forced: bool, timeout_s: float = TIMEOUT_S) -> list[NodeRow]:
    """Every node of the request's batches, computed in step; `forced`: our results are replaced by llama.cpp's.

    A row's `alone` and `carried` are the same number: which of the two it is, `forced` says. Raises as `verify_nodes`.
    """
    model.reset()
    with LlamaNodes(request, timeout_s=timeout_s) as theirs:
        comparison = _Comparison(theirs, forced=forced)
        for batch in request.batches:
            comparison.begin()
            model.decode(batch, comparison.see)
        extra = theirs.next()
        if extra is not None:
            raise UnsupportedError(f"llama.cpp's graph has more nodes than ours: {extra.op} {extra.name!r} behind all")
    return comparison.rows


class _Comparison:
    """Takes llama.cpp's node for each of ours."""

    def __init__(self, theirs: LlamaNodes, *, forced: bool) -> None:
        self._theirs = theirs
        self._forced = forced
        self.rows: list[NodeRow] = []
        self._batch = -1

    def begin(self) -> None:
        """Another batch follows."""
        self._batch += 1
        self._names: dict[Tensor, str] = {}
        self._layers: dict[Tensor, int | None] = {}

    def see(self, node: Tensor, ours: Array) -> None:
        """Compare our node with llama.cpp's next one."""
        their = self._theirs.next()
        if their is None or (their.op, their.ne, their.type) != (node.op, node.ne, node.type):
            found = "nothing more" if their is None else f"{their.op} {their.name!r} {their.type.name} {their.ne}"
            raise UnsupportedError(
                f"llama.cpp computes another graph: node {len(self._names)} of batch {self._batch} is {found} there, "
                f"{node.op} {node.type.name} {node.ne} here; the nodes before it agree in kind and shape"
            )
        self._names[node] = their.name
        self._layers[node] = self._layer(node, their.name)
        nmse, is_exact = difference(their, ours)
        self.rows.append(
            NodeRow(
                batch=self._batch, index=len(self._names) - 1, name=their.name, op=node.op, layer=self._layers[node],
                ne=node.ne, type=node.type.name, sources=tuple(map(self._source, node.src)),
                alone=nmse, carried=nmse, is_exact=is_exact, buffer=their.buffer,
            )
        )  # fmt: skip
        if self._forced:
            ours[...] = their.array

    def _layer(self, node: Tensor, name: str) -> int | None:
        """By its name; one without is in that of its sources, or of the node before."""
        match = _LAYER.search(name)
        if match:
            return int(match[1])
        if not _UNNAMED.match(name):
            return None
        found = [self._layer_of_source(source) for source in node.src]
        found += [row.layer for row in self.rows[-1:] if row.batch == self._batch]
        return max((layer for layer in found if layer is not None), default=None)

    def _layer_of_source(self, source: Tensor) -> int | None:
        tensor = _computed(source)
        match = re.match(r"blk\.(\d+)\.", tensor.name)
        return int(match[1]) if match else self._layers.get(tensor)

    def _source(self, source: Tensor) -> Source:
        tensor = _computed(source)
        name = self._names.get(tensor) or tensor.name or " of layer ".join(map(str, tensor.params[:2]))
        return Source(name=name, type=source.type.name, ne=source.ne)


def _computed(tensor: Tensor) -> Tensor:
    """What a view shows: the node, weight, input or cache behind reshapes and permutations."""
    while tensor.op in ("VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"):
        tensor = tensor.src[0]
    return tensor


def difference(their: LlamaNode, ours: Array) -> tuple[float, bool]:
    """NMSE of ours to llama.cpp's (of whole numbers: the share that differs), and whether all bits are the same.

    Numbers that are not finite must be the same on both sides, or the NMSE is infinite.
    """
    a, b = their.array.reshape(-1), ours.reshape(-1)
    if their.op == "TOP_K":  # in no order
        a, b = np.sort(their.array).reshape(-1), np.sort(ours).reshape(-1)
    if their.type in _INTEGERS:
        share = float(np.mean(a != b))
        return share, share == 0
    error = power = 0.0
    is_exact = True
    for start in range(0, len(a), PIECE):
        x, y = a[start : start + PIECE], b[start : start + PIECE]
        if x.tobytes() == y.tobytes():
            power += _power(to_f32(x, their.type))
            continue
        is_exact = False
        more_error, more_power = _errors(to_f32(x, their.type), to_f32(y, their.type))
        error, power = error + more_error, power + more_power
    if error == 0:
        return 0.0, is_exact
    return error / power if power else float("inf"), is_exact


def _power(x: F32) -> float:
    return float(np.square(x[np.isfinite(x)].astype(np.float64)).sum())


def _errors(x: F32, y: F32) -> tuple[float, float]:
    finite = np.isfinite(x)
    same: bool = np.array_equal(x[~finite], y[~finite], equal_nan=True) and bool(np.isfinite(y[finite]).all())
    if not same:
        return float("inf"), 0.0
    a, b = x[finite].astype(np.float64), y[finite].astype(np.float64)
    return float(np.square(a - b).sum()), float(np.square(a).sum())
