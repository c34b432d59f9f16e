"""What encoders have in common: the estimate for projectors that have no graph of their own yet.

Patches (or frames, two by two), a transformer as wide and deep as the file says, and one projection of what is merged.

Error: see docs/physics.md; the basis says `estimate` wherever this file was used.
"""

from ggufphys.clip.builder import ClipBuilder
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import conv_2d, transpose
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32, elementwise, reshape


def build(b: ClipBuilder) -> Graph:
    """A graph of the usual shape."""
    h = b.h
    if h.modality == "vision":
        kernel = ops.weight(ops.F16, h.patch_size, h.patch_size, 3, h.n_embd)
        x = conv_2d(kernel, b.inp_raw(), h.patch_size)
        x = ops.cont(transpose(reshape(x, b.n_patches, h.n_embd)))
        n_pos = b.n_patches
    else:
        n_pos = b.nx // 2
        x = ops.mul_mat(ops.weight(F32, 2 * b.ny, h.n_embd), ops.new_input(F32, 2 * b.ny, n_pos))
    for il in range(h.n_layer):
        x = _layer(b, x, il, n_pos)
    n_tokens = n_pos // h.n_merge**2 if h.modality == "vision" else n_pos // 2
    x = ops.cont(reshape(x, x.ne[0] * (n_pos // n_tokens), n_tokens) if n_pos % n_tokens == 0 else x)
    return b.finish(ops.mul_mat(ops.weight(F32, x.ne[0], h.n_embd), x))


def _layer(b: ClipBuilder, x: Tensor, il: int, n_pos: int) -> Tensor:
    h = b.h
    normed = _norm(x)
    q, k, v = (
        reshape(_linear(normed, h.n_embd_head * n_head), h.n_embd_head, n_head, n_pos)
        for n_head in (h.n_head, h.n_head_kv, h.n_head_kv)
    )
    for tensor in (q, k, v):
        b.graph.expand(tensor)
    q, k, v = (ops.permute(t, 0, 2, 1, 3) for t in (q, k, v))
    attended = Tensor(
        "FLASH_ATTN_EXT", F32, (v.ne[0], q.ne[2], q.ne[1]), (q, ops.cast(k, ops.F16), ops.cast(v, ops.F16))
    )
    attended = reshape(attended, h.n_embd_head * h.n_head, n_pos)
    residual = elementwise("ADD", _linear(attended, h.n_embd), x)
    up = b.weight_or_none(f"@.blk.{il}.ffn_up.weight")
    n_ff = max(up.ne[:2]) if up is not None else 4 * h.n_embd
    return elementwise("ADD", residual, _linear(elementwise("UNARY", _linear(_norm(residual), n_ff)), h.n_embd))


def _norm(x: Tensor) -> Tensor:
    return elementwise("MUL", elementwise("NORM", x), ops.weight(F32, x.ne[0]))


def _linear(x: Tensor, n_out: int) -> Tensor:
    return elementwise("ADD", ops.mul_mat(ops.weight(F32, x.ne[0], n_out), x), ops.weight(F32, n_out))
