"""Which operations can Vulkan run on a device? The others go to the host.

Source: llama.cpp 0c1e570 ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_backend_vk_device_supports_op.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import IN_F32
from ggufphys.graph.strides import has_contiguous_rows, is_contiguous_from
from ggufphys.limits import DeviceLimits

Rule: TypeAlias = Callable[[Tensor, DeviceLimits], bool]

F32, F16, BF16, I32, I64 = GGMLType.F32, GGMLType.F16, GGMLType.BF16, GGMLType.I32, GGMLType.I64
_FLOATS: Final = frozenset({F32, F16})
_WRITTEN: Final = frozenset({  # what values can be turned into
    F32, F16, BF16, GGMLType.Q1_0, GGMLType.Q2_0, GGMLType.Q4_0, GGMLType.Q4_1, GGMLType.Q5_0, GGMLType.Q5_1,
    GGMLType.Q8_0, GGMLType.IQ4_NL,
})  # fmt: skip
_CACHED: Final = _WRITTEN - {GGMLType.Q1_0, GGMLType.Q2_0}  # K and V of flash attention, keys of an indexer
_MULTIPLIED: Final = frozenset(GGMLType) - {
    GGMLType.I8, GGMLType.I16, I32, I64, GGMLType.F64, GGMLType.Q8_1, GGMLType.Q8_K,
}  # fmt: skip
_LOOKED_UP: Final = _MULTIPLIED | {I32}
_DELTA_HEADS: Final = frozenset({16, 32, 64, 128})
_SCAN_STATES: Final = frozenset({128, 256})
INDEXER_HEAD: Final = 128
LINEAR_HEAD: Final = 64
N_STREAMS: Final = 4  # that shaders for hyper-connections know


def max_tensor_bytes(limits: DeviceLimits) -> int:
    """The largest tensor that an operation may read or write."""
    return min(limits.storage_buffer_range_bytes, limits.buffer_bytes)


def supports(node: Tensor, limits: DeviceLimits) -> bool:
    """Whether the device computes this node, as far as its tensors are not too large."""
    rule = _RULES.get(node.op)
    return rule is not None and rule(node, limits)


def _always(_node: Tensor, _limits: DeviceLimits) -> bool:
    return True


def _dense(tensor: Tensor) -> bool:
    return is_contiguous_from(0, tensor)


def _unary(node: Tensor, _: DeviceLimits) -> bool:
    return node.type in _FLOATS and all(source.type is node.type for source in node.src)


def _from_float(node: Tensor, _: DeviceLimits) -> bool:
    return node.src[0].type in _FLOATS and node.type is node.src[0].type


def _float(node: Tensor, _: DeviceLimits) -> bool:
    return node.type in _FLOATS


def _of_f32(node: Tensor, _: DeviceLimits) -> bool:
    return node.src[0].type is F32


def _all_f32(node: Tensor, _: DeviceLimits) -> bool:
    return node.type is F32 and all(source.type is F32 for source in node.src)


def _dense_f32(node: Tensor, _: DeviceLimits) -> bool:
    return _dense(node.src[0]) and node.src[0].type is F32


def _rows_f32(node: Tensor, _: DeviceLimits) -> bool:
    return node.src[0].type is F32 and has_contiguous_rows(node.src[0])


def _cumulative(node: Tensor, limits: DeviceLimits) -> bool:
    return "arithmetic" in limits.subgroup_operations and limits.full_subgroups and _rows_f32(node, limits)


def _dense_first(node: Tensor, _: DeviceLimits) -> bool:
    return _dense(node.src[0])


def _dense_both(node: Tensor, _: DeviceLimits) -> bool:
    return _dense(node) and _dense(node.src[0])


def _binary(node: Tensor, _: DeviceLimits) -> bool:
    return all(tensor.type in _FLOATS for tensor in (node, *node.src[:2]))


def _add_id(node: Tensor, _: DeviceLimits) -> bool:
    return [t.type for t in (node, *node.src)] == [F32, F32, F32, I32]


def _mul_mat(node: Tensor, _: DeviceLimits) -> bool:
    weights, x = node.src[:2]
    if node.op == "MUL_MAT_ID" and IN_F32 in node.params:
        return False
    if weights.type not in _MULTIPLIED or (node.src[2] if node.op == "MUL_MAT_ID" else weights).ne[3] != x.ne[3]:
        return False
    if not (_is_matrix(weights) or weights.type in (F32, F16, BF16)) or not (_is_matrix(x) or x.type in _FLOATS):
        return False
    if weights.type is BF16:
        return x.type is not F16
    return x.type is not BF16


def _is_matrix(tensor: Tensor) -> bool:
    """ggml_vk_dim01_contiguous."""
    (n0, _, n2, n3), (nb0, nb1, nb2, nb3), size = tensor.ne, tensor.nb, SIZES[tensor.type]
    return nb0 == size.type_size and nb1 == nb0 * n0 // size.block_size and (n3 == 1 or nb3 == nb2 * n2)


def _flash_attn(node: Tensor, limits: DeviceLimits) -> bool:
    q, k, v, *more = node.src
    has_sinks = bool(node.params[3])
    sinks, masks = (more[-1:], more[:-1]) if has_sinks else ([], more)
    return (
        not (k.ne[0] % 8 or v.ne[0] % 8)
        and all(tensor.type is F32 for tensor in (*sinks, q, node))
        and all(mask.type is F16 for mask in masks)
        and {k.type, v.type} <= _CACHED
        and (k.type is BF16) == (v.type is BF16)
        and {"shuffle", "vote"} <= set(limits.subgroup_operations)
    )


def _get_rows(node: Tensor, _: DeviceLimits) -> bool:
    return node.src[0].type in _LOOKED_UP


def _set_rows(node: Tensor, _: DeviceLimits) -> bool:
    values, rows = node.src[:2]
    return values.type in _FLOATS and rows.type in (I32, I64) and node.type in _WRITTEN


def _copy(node: Tensor, _: DeviceLimits) -> bool:
    source, target = node.src[0].type, node.type
    if source is F32 and target in (*_WRITTEN, I32):
        return True
    if target is F32 and source in (*_WRITTEN, I32):
        return True
    size = SIZES[source]
    dense = size.block_size == 1 or (_dense(node.src[0]) and _dense(node))
    return source is target and dense and size.type_size % 2 == 0


def _repeat(node: Tensor, _: DeviceLimits) -> bool:
    size = SIZES[node.type].type_size
    return size == SIZES[node.src[0].type].type_size and size in (2, 4)


def _rope(node: Tensor, _: DeviceLimits) -> bool:
    return has_contiguous_rows(node) and has_contiguous_rows(node.src[0])


def _set(node: Tensor, _: DeviceLimits) -> bool:
    return node.type in (F32, I32) and all(source.type is node.type for source in node.src)


def _concat(node: Tensor, _: DeviceLimits) -> bool:
    tensors = (*node.src, node)
    if any(tensor.type is not node.type for tensor in tensors):
        return False
    size = SIZES[node.type]
    return size.type_size in (1, 2, 4, 8) if size.block_size == 1 else all(map(has_contiguous_rows, tensors))


def _soft_max(node: Tensor, limits: DeviceLimits) -> bool:
    has_mask = len(node.src) > 1 + bool(node.params[2])
    return _dense_f32(node, limits) and (not has_mask or node.src[1].type in _FLOATS)


def _patches(node: Tensor, _: DeviceLimits) -> bool:
    return _dense(node.src[1]) and node.src[1].type is F32 and node.type in _FLOATS


def _hyper_connections(node: Tensor, limits: DeviceLimits) -> bool:
    if node.op == "DSV4_HC_COMB":
        together = {"basic", "shuffle"} <= set(limits.subgroup_operations) and limits.subgroup_size >= 16
        return _all_f32(node, limits) and together and limits.full_subgroups
    streams = node.src[0] if node.op == "DSV4_HC_PRE" else node.src[1]
    return _all_f32(node, limits) and streams.ne[1] == N_STREAMS


def _linear_attn(node: Tensor, _: DeviceLimits) -> bool:
    return node.src[0].type is node.type is F32 and node.src[0].ne[0] == LINEAR_HEAD


def _indexer(node: Tensor, limits: DeviceLimits) -> bool:
    if node.src[1].type not in _CACHED or not limits.float16 or node.src[0].ne[0] != INDEXER_HEAD:
        return False
    for tensor in (*node.src, node):
        size = SIZES[tensor.type].type_size
        if tensor.nb[0] != size or tensor.offset % limits.storage_buffer_alignment_bytes:
            return False
        if any(stride % size for stride in tensor.nb[1:]):
            return False
    return True


def _delta_net(node: Tensor, limits: DeviceLimits) -> bool:
    return node.src[2].ne[0] in _DELTA_HEADS and _all_f32(node, limits)


def _scan(node: Tensor, limits: DeviceLimits) -> bool:
    """Mamba 2's alone, where a head decays as a whole."""
    state, decay = node.src[0], node.src[3]
    return (
        all(SIZES[source.type].block_size == 1 for source in node.src[:6])
        and node.src[6].type is I32
        and state.type is node.type is F32
        and decay.nb[1] == 4
        and state.ne[0] in _SCAN_STATES
        and state.ne[1] % 16 == 0
        and state.ne[0] * 4 <= limits.shared_memory_bytes
        and "basic" in limits.subgroup_operations
    )


_RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "RMS_NORM", "ROPE_BACK"), _always),
    **dict.fromkeys(("RWKV_WKV6", "RWKV_WKV7", "ARANGE"), _always),
    **dict.fromkeys(("UNARY", "GLU"), _unary),
    **dict.fromkeys(("MUL_MAT", "MUL_MAT_ID"), _mul_mat),
    **dict.fromkeys(("CONT", "CPY", "DUP"), _copy),
    **dict.fromkeys(("NORM", "L2_NORM"), _all_f32),
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), _binary),
    **dict.fromkeys(("SQR", "SQRT", "CLAMP"), _from_float),
    **dict.fromkeys(("ARGSORT", "TOP_K"), _dense_both),
    **dict.fromkeys(("SCALE", "ARGMAX", "POOL_1D", "POOL_2D"), _dense_f32),
    **dict.fromkeys(("SUM_ROWS", "MEAN"), _rows_f32),
    **dict.fromkeys(("UPSCALE", "PAD", "SSM_CONV"), _of_f32),
    **dict.fromkeys(("DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST"), _hyper_connections),
    "CUMSUM": _cumulative,
    "FILL": _float,
    "FLASH_ATTN_EXT": _flash_attn,
    "GET_ROWS": _get_rows,
    "SET_ROWS": _set_rows,
    "REPEAT": _repeat,
    "ROPE": _rope,
    "GROUP_NORM": _dense_first,
    "ADD_ID": _add_id,
    "SET": _set,
    "CONCAT": _concat,
    "SOFT_MAX": _soft_max,
    "IM2COL": _patches,
    "GATED_LINEAR_ATTN": _linear_attn,
    "LIGHTNING_INDEXER": _indexer,
    "GATED_DELTA_NET": _delta_net,
    "SSM_SCAN": _scan,
}
