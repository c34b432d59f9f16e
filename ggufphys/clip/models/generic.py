"""What encoders have in common: the estimate for projectors that have no graph of their own yet.

Patches (or frames, two by two), the transformer as the file's tensors describe it, and an MLP on what is merged. What a
projector adds to that (windows, resamplers, other kinds of layers) is left out.

Error: `python -m bench.mmproj` measures it on the projectors that have a graph; see docs/physics.md.
"""

from functools import partial

from ggufphys.clip.builder import AddPos, ClipBuilder, Norm
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import conv_2d
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32, elementwise, reshape, transpose


def build(b: ClipBuilder) -> Graph:
    """A graph of the usual shape."""
    h = b.h
    x, n_pos = _patches(b) if h.modality == "vision" else _frames(b)
    add_pos: AddPos | None = None
    if b.weight_or_none("@.position_embd.weight") is not None:
        x = elementwise("ADD", x, ops.weight(F32, h.n_embd, n_pos))
    else:
        positions = b.inp_ids(n_pos)
        add_pos = partial(_rotated, positions)
    norm: Norm = "NORM" if b.weight_or_none("@.blk.0.ln1.bias") is not None else "RMS_NORM"
    for il in range(h.n_layer):
        x = b.vit_layer(x, il, n_pos, norm, add_pos) if _usual(b, il) else _layer(b, x)
    n_merged = h.n_merge**2 if h.modality == "vision" else 2
    n_merged = n_merged if n_pos % n_merged == 0 else 1
    x = ops.cont(reshape(x, h.n_embd * n_merged, n_pos // n_merged))
    return b.finish(_mlp(x, x.ne[0], h.n_embd))


def _rotated(positions: Tensor, x: Tensor) -> Tensor:
    return elementwise("ROPE", x, positions)


def _patches(b: ClipBuilder) -> tuple[Tensor, int]:
    pixels, kernel = b.inp_raw(), ops.weight(ops.F16, b.h.patch_size, b.h.patch_size, 3, b.h.n_embd)
    x = conv_2d(kernel, pixels, b.h.patch_size)
    if b.weight_or_none("v.patch_embd.weight.1") is not None:
        x = elementwise("ADD", x, conv_2d(kernel, pixels, b.h.patch_size))
    return ops.cont(transpose(reshape(x, b.n_patches, b.h.n_embd))), b.n_patches


def _frames(b: ClipBuilder) -> tuple[Tensor, int]:
    n_pos = b.nx // 2
    return ops.mul_mat(ops.weight(F32, 2 * b.ny, b.h.n_embd), ops.new_input(F32, 2 * b.ny, n_pos)), n_pos


def _usual(b: ClipBuilder, il: int) -> bool:
    """Has the layer the tensors of the usual one?"""
    names = ("attn_out", "ffn_up", "ffn_down", "attn_qkv" if _fused(b, il) else "attn_q")
    return all(b.weight_or_none(f"@.blk.{il}.{name}.weight") is not None for name in names)


def _fused(b: ClipBuilder, il: int) -> bool:
    return b.weight_or_none(f"@.blk.{il}.attn_qkv.weight") is not None


def _layer(b: ClipBuilder, x: Tensor) -> Tensor:
    """A layer of which nothing is known: four times as wide inside."""
    h, n_pos = b.h, x.ne[1]
    normed = elementwise("NORM", x)
    q, k, v = (
        reshape(_linear(normed, h.n_embd_head * n_head), h.n_embd_head, n_head, n_pos)
        for n_head in (h.n_head, h.n_head_kv, h.n_head_kv)
    )
    for tensor in (q, k, v):
        b.graph.expand(tensor)
    q, k, v = (ops.permute(t, 0, 2, 1, 3) for t in (q, k, v))
    sources = (q, ops.cast(k, ops.F16), ops.cast(v, ops.F16))
    attended = Tensor("FLASH_ATTN_EXT", F32, (v.ne[0], q.ne[2], q.ne[1]), sources)
    attended = reshape(attended, h.n_embd_head * h.n_head, n_pos)
    residual = elementwise("ADD", _linear(attended, h.n_embd), x)
    return elementwise("ADD", residual, _mlp(elementwise("NORM", residual), 4 * h.n_embd, h.n_embd))


def _mlp(x: Tensor, n_inner: int, n_out: int) -> Tensor:
    return _linear(elementwise("UNARY", _linear(x, n_inner)), n_out)


def _linear(x: Tensor, n_out: int) -> Tensor:
    return elementwise("ADD", ops.mul_mat(ops.weight(F32, x.ne[0], n_out), x), ops.weight(F32, n_out))
