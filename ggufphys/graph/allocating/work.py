"""How much scratch memory do the CPU's kernels want beside the compute buffer? As much as the hungriest node.

Matrix products convert their right operand to the type that the weights' dot product takes.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/ggml-cpu.c, ggml_graph_plan, type_traits_cpu; common.h (tile sizes);
tiled/tiled.cpp, ggml_tiled_supported, ggml_tiled_wdata_size.
"""

from collections.abc import Callable
from math import prod
from typing import Final, TypeAlias

from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.graph.affine import Point, at
from ggufphys.graph.ir import Graph, Tensor

_Q8_0: Final = frozenset(
    {GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.Q8_0, GGMLType.IQ4_NL, GGMLType.MXFP4, GGMLType.NVFP4}
    | {GGMLType.Q1_0, GGMLType.Q2_0}
)
_Q8_1: Final = frozenset({GGMLType.Q4_1, GGMLType.Q5_1, GGMLType.Q8_1})
_ITSELF: Final = frozenset({GGMLType.F32, GGMLType.F16, GGMLType.BF16})
# Types that the tiled kernels for batches take, unless the weights were repacked for another kernel.
_TILED: Final = frozenset(
    {GGMLType.Q2_K, GGMLType.Q3_K, GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K, GGMLType.IQ4_XS}
    | {GGMLType.IQ2_XXS, GGMLType.IQ2_XS, GGMLType.IQ2_S, GGMLType.IQ3_XXS, GGMLType.IQ3_S}
    | {GGMLType.IQ1_S, GGMLType.IQ1_M}
)
TILED_SLOT_BYTES: Final = 512 << 10  # for each thread: tiled-kernel.h, TILED_WS_SLOT
FA_TILE_Q: Final = 64
FA_TILE_KV: Final = 64


Form: TypeAlias = tuple[GGMLType, bool]
"""The type of a weight, and whether it is kept in a repacked layout."""


def vec_dot_type(ggml_type: GGMLType) -> GGMLType:
    """The type that a dot product with `ggml_type` wants its other operand in."""
    if ggml_type in _ITSELF:
        return ggml_type
    if ggml_type in _Q8_0:
        return GGMLType.Q8_0
    return GGMLType.Q8_1 if ggml_type in _Q8_1 else GGMLType.Q8_K


def work_bytes(
    graph: Graph,
    n_threads: int,
    *,
    repacked: frozenset[str],
    cpu_features: frozenset[str],
    forms: Callable[[str, frozenset[str]], frozenset[Form]] | None = None,
    point: Point = (),
) -> int:
    """Bytes of scratch memory for the whole graph: the most that any node asks for.

    `repacked` names the weights that are kept in a repacked layout; `cpu_features` are those of `machine.host`.
    `forms` gives those of the weights of layers that were left out of the graph, for one that stands for them; `point`
    is where the sizes of a traced graph are looked at.
    """
    largest: dict[tuple[GGMLType, frozenset[Form]], int] = {}  # right operands, by what they are multiplied with
    wanted = 0
    for node in graph.nodes:
        if node.op in ("MUL_MAT", "MUL_MAT_ID"):
            weights, x = node.src[0], node.src[1]
            n_elements = prod([n if type(n) is int else at(n, point) for n in x.ne])
            found = forms(weights.name, repacked) if forms is not None else None
            kind = x.type, found or frozenset({(weights.type, weights.name in repacked)})
            if n_elements > largest.get(kind, -1):
                largest[kind] = n_elements
        elif node.op == "FLASH_ATTN_EXT":
            wanted = max(wanted, _attention_bytes(node, n_threads))
        elif node.op == "TOP_K":  # the order of a row
            n = node.src[0].ne[0]
            wanted = max(wanted, 4 * n_threads * (n if type(n) is int else at(n, point)))
        elif node.op == "LIGHTNING_INDEXER":  # a key
            wanted = max(wanted, 4 * n_threads * node.src[1].ne[0])
    tiled = _TILED if "avx2" in cpu_features else frozenset[GGMLType]()
    for (x_type, of_weights), n_elements in largest.items():
        for ggml_type, is_repacked in of_weights:
            slots = n_threads * TILED_SLOT_BYTES if ggml_type in tiled and not is_repacked else 0
            wanted = max(wanted, slots + _converted_bytes(x_type, n_elements, ggml_type))
    return wanted


def _converted_bytes(x_type: GGMLType, n_elements: int, ggml_type: GGMLType) -> int:
    """The right operand in the type that a product with weights of `ggml_type` wants."""
    wanted = vec_dot_type(ggml_type)
    return 0 if x_type is wanted else n_elements // SIZES[wanted].block_size * SIZES[wanted].type_size


def _attention_bytes(node: Tensor, n_threads: int) -> int:
    n_k, n_v, n_head = node.src[1].ne[0], node.src[2].ne[0], node.src[0].ne[2]
    prefill = FA_TILE_Q * (n_k + n_v) + FA_TILE_KV * (n_k + n_v) + 2 * FA_TILE_Q * FA_TILE_KV
    decode = n_head * (2 + n_v) + n_k + 2 * n_v
    return 4 * n_threads * max(prefill, decode)
