"""Where are a graph's weights and caches, its norms, and what devices fetch from the host?

What `split` asks while it divides a graph, answered from where layers and weights lie.
"""

from collections.abc import Callable, Mapping, Sequence

from ggufphys.arch.roles import Role, norm_layer, role_of
from ggufphys.graph.devices.placed import REPACKED, TOKEN_EMBD, Placed, Placement
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.params import HOST

Home = Callable[[Tensor, Tensor], str]
"""The device of a weight or cache, and for which node it is asked."""

Offload = Callable[[Tensor], str | None]
"""The device that fetches weights from the host to run a node, if any would."""

NormHome = Callable[[str], str | None]
"""The device that a norm is pinned to, by the name of its weight."""


def homes(arch: str, placed: Placed, rope_layers: Mapping[Tensor, int] | None = None) -> Home:
    """Where weights and caches are, as `graph.split` asks for it; names that the file lacks follow their layer.

    `rope_layers` are the layers of rotations, whose factors each device has for its own.
    """
    placement = placed.placement
    devices = placed.devices_by_weight

    def home(tensor: Tensor, reader: Tensor) -> str:
        if not tensor.name:
            il = tensor.params[1]
            assert isinstance(il, int), "a cache says whose it is"
            return placement.kv(il)
        found = devices.get(tensor.name)
        if found:
            if len(found) == 1:
                return found[0]
            if tensor.name == TOKEN_EMBD and reader.op != "GET_ROWS":
                return found[-1]  # its copy, where the output is
            layer = (rope_layers or {}).get(reader)
            own = found[0] if layer is None else placement.layers[layer]
            return own if own in found else found[0]
        role = role_of(arch, tensor.name)
        if role is Role.INPUT:
            return HOST
        return placement.layers[role] if isinstance(role, int) else placement.output

    return home


def offload(placed: Placed) -> Offload | None:
    """Which operations on weights of the host does a device take over? Those of batches large enough, not repacked.

    The CPU alone gives them away: products that a BLAS backend has are its own, wherever batches are large enough.

    Source: llama.cpp 0c1e570 ggml/src/ggml-backend.cpp, ggml_backend_sched_backend_id_from_cur; ggml/src/ggml-cuda/
    ggml-cuda.cu, get_op_batch_size, and its like.
    """
    takers = placed.takers
    if not takers or not placed.params.op_offload:
        return None
    blas_has = _blas_has if placed.params.use_blas else _never
    least = min(backend.offloads_from for _, backend in takers)
    repacked = frozenset(tensor.name for tensor in placed.weights.get(REPACKED, ()))

    def taker(node: Tensor) -> str | None:
        """The first device that would, in llama.cpp's order."""
        if (repacked and any(source.name in repacked for source in node.src)) or blas_has(node):
            return None
        n_tokens = {
            "GET_ROWS": 0, "MUL_MAT": node.ne[1], "MUL_MAT_ID": node.ne[2],
        }.get(node.op, node.ne[1] * node.ne[2] * node.ne[3])  # fmt: skip
        if n_tokens < least:
            return None
        for name, backend in takers:
            only = backend.offloads_only
            if n_tokens >= backend.offloads_from and (not only or node.op in only) and backend.runs(node):
                return name
        return None

    return taker


def fetches_experts(placed: Placed, n_tokens: int) -> bool:
    """Does a device take over products with experts that lie on the host? See `offload`: a row for each token."""
    return any(0 < backend.offloads_from <= n_tokens for backend in placed.placement.backends.values())


def _blas_has(node: Tensor) -> bool:
    from ggufphys.graph.allocating.blas import multiplies  # what hardly any build needs

    return multiplies(node)


def _never(_: Tensor) -> bool:
    return False


def norm_home(arch: str, placement: Placement) -> NormHome:
    """Where norms are pinned: to the device of their layer, as far as layers go."""

    def home(name: str) -> str | None:
        il = norm_layer(arch, name)
        return placement.layers[il] if il is not None and il < len(placement.layers) else None

    return home


def layers_of(op: str, graph: Graph, layers: Sequence[int]) -> Mapping[Tensor, int]:
    """The layer of each node of this operation."""
    ends = [*graph.marks[1:], len(graph.nodes)][: len(graph.marks)]
    return {
        node: il
        for il, start, end in zip(layers, graph.marks, ends, strict=True)
        for node in graph.nodes[start:end]
        if node.op == op
    }
