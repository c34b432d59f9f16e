"""qwen2vl, qwen2.5vl, qwen3vl, ling3vl, exaone4_5, youtuvl, minimax_m3, glm4v, glm5v: patches in squares of four.

Source: llama.cpp 0c1e570 tools/mtmd/models/qwen2vl.cpp, qwen3vl.cpp, ling3vl.cpp, exaone4_5.cpp, youtuvl.cpp,
minimax-m3.cpp, glm4v.cpp.
"""

from ggufphys.clip.builder import ClipBuilder, Norm
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import conv_2d
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F16, F32, concat, elementwise, reshape


def qwen2vl(b: ClipBuilder) -> Graph:
    """qwen2vl; qwen2.5vl and exaone4_5, most of whose layers see a window."""
    h, n_pos = b.h, b.n_patches
    norm: Norm = "NORM" if h.projector.name == "qwen2vl_merger" else "RMS_NORM"
    x = _in_squares(b, _two_frames(b))
    positions = b.inp_ids(4 * n_pos)
    if b.weight_or_none("@.pre_ln.weight") is not None:
        x = b.norm(x, "@.pre_ln", norm)
    mask = None
    if h.n_wa_pattern:
        order = b.inp_ids(n_pos // 4)
        mask = ops.cast(ops.new_input(F32, n_pos, n_pos), F16)
        x = reshape(ops.get_rows(reshape(x, 4 * h.n_embd, n_pos // 4), order), h.n_embd, n_pos, 1)
    for il in range(h.n_layer):
        whole = not h.n_wa_pattern or (il + 1) % h.n_wa_pattern == 0
        layer = _layer if h.projector.name != "exaone4_5" else _fused_layer
        x = layer(b, x, il, norm, positions, None if whole else mask)
    if b.weight_or_none("@.post_ln.weight") is not None:
        x = b.norm(x, "@.post_ln", norm)
    x = b.ffn(reshape(x, 4 * h.n_embd, n_pos // 4, 1), "mm.0", "mm.2")
    if h.n_wa_pattern:
        back = b.inp_ids(n_pos // 4)
        x = ops.get_rows(reshape(x, x.ne[0], n_pos // 4), back)
        x = reshape(x, x.ne[0], n_pos // 4, 1)
    return b.finish(x)


def qwen3vl(b: ClipBuilder) -> Graph:
    """Learned positions too, and outputs of some layers beside the last (deepstack)."""
    h, n_pos = b.h, b.n_patches
    x = b.plus_bias("v.patch_embd", _in_squares(b, _two_frames(b)))
    x = elementwise("ADD", x, _positions(b))
    positions = b.inp_ids(4 * n_pos)
    if b.weight_or_none("@.pre_ln.weight") is not None:
        x = b.norm(x, "@.pre_ln", "NORM")
    features: Tensor | None = None
    area = h.n_merge**2
    for il in range(h.n_layer):
        x = _fused_layer(b, x, il, "NORM", positions)
        stem = f"v.deepstack.{il}"
        if b.weight_or_none(f"{stem}.fc1.weight") is not None:
            feature = b.norm(reshape(x, h.n_embd * area, n_pos // area, 1), f"{stem}.norm", "NORM")
            feature = b.ffn(feature, f"{stem}.fc1", f"{stem}.fc2")
            features = feature if features is None else concat(features, feature, 0)
    if b.weight_or_none("@.post_ln.weight") is not None:
        x = b.norm(x, "@.post_ln", "NORM")
    x = b.ffn(reshape(x, 4 * h.n_embd, n_pos // 4, 1), "mm.0", "mm.2")
    return b.finish(x if features is None else concat(x, features, 0))


def ling3vl(b: ClipBuilder) -> Graph:
    """qwen3vl's tower with a norm before the squares."""
    h, n_pos = b.h, b.n_patches
    x = b.plus_bias("v.patch_embd", _in_squares(b, _two_frames(b)))
    learned = _positions(b)
    positions = b.inp_ids(4 * n_pos)
    x = b.vit(x, n_pos, "NORM", learned, lambda t: elementwise("ROPE", t, positions))
    x = b.norm(x, "mm.input_norm", "NORM")
    return b.finish(b.ffn(reshape(x, 4 * h.n_embd, n_pos // 4, 1), "mm.0", "mm.2"))


def youtuvl(b: ClipBuilder) -> Graph:
    """Patches by rearranging pixels; windows in all layers but those that the file names."""
    h, n_pos, patch = b.h, b.n_patches, b.h.patch_size
    wide, high = b.n_patches_x // 2, b.n_patches_y // 2
    x = reshape(b.inp_raw(), wide * 2 * patch, 2 * patch, high, 3)
    x = ops.cont(ops.permute(x, 1, 2, 3, 0), 6 * patch, wide, 2 * patch, high)
    x = ops.cont(ops.permute(x, 0, 2, 1, 3), 6 * patch, patch, 2, high * wide)
    x = ops.cont(ops.permute(x, 1, 0, 2, 3), patch, 3, patch, high * wide * 4)
    x = ops.cont(ops.permute(x, 2, 0, 1, 3), 3 * patch * patch, high * wide * 4, 1)
    x = reshape(b.linear("v.patch_embd", x), h.n_embd, n_pos)
    positions = b.inp_ids(4 * n_pos)
    if b.weight_or_none("@.pre_ln.weight") is not None:
        x = b.norm(x, "@.pre_ln", "NORM")
    mask = None
    if h.wa_layers:
        order = b.inp_ids(n_pos // 4)
        mask = ops.cast(ops.new_input(F32, n_pos, n_pos), F16)
        x = reshape(ops.get_rows(reshape(x, 4 * h.n_embd, n_pos // 4), order), h.n_embd, n_pos, 1)
    for il in range(h.n_layer):
        x = _layer(b, x, il, "NORM", positions, None if il in h.wa_layers else mask)
    if h.wa_layers:
        back = b.inp_ids(n_pos // 4)
        x = reshape(ops.get_rows(reshape(x, 4 * h.n_embd, n_pos // 4), back), h.n_embd, n_pos, 1)
    if b.weight_or_none("@.post_ln.weight") is not None:
        x = b.norm(x, "@.post_ln", "NORM")
    x = b.norm(x, "mm.input_norm", "RMS_NORM", bias=False)
    return b.finish(b.ffn(reshape(x, 4 * h.n_embd, n_pos // 4, 1), "mm.0", "mm.2"))


def minimax_m3(b: ClipBuilder) -> Graph:
    """One MLP for each patch, another for each square."""
    n_pos, area = b.n_patches, b.h.n_merge**2
    x = _in_squares(b, _two_frames(b))
    pos_h, pos_w = b.inp_ids(n_pos), b.inp_ids(n_pos)
    x = b.ffn(b.vit(x, n_pos, "NORM", None, lambda t: b.rope_2d(t, pos_h, pos_w)), "mm.1", "mm.2")
    x = reshape(x, x.ne[0] * area, n_pos // area)
    return b.finish(b.ffn(x, "mm.merger.fc1", "mm.merger.fc2"))


def glm4v(b: ClipBuilder) -> Graph:
    """glm4v and glm5v: a convolution merges the squares."""
    h, n_pos, m = b.h, b.n_patches, b.h.n_merge
    positions = b.inp_ids(4 * n_pos)
    x = b.plus_bias("v.patch_embd", _in_squares(b, _two_frames(b)))
    if b.weight_or_none("v.norm_embd.weight") is not None:
        x = b.norm(x, "v.norm_embd", "RMS_NORM")
    learned = None if b.weight_or_none("@.position_embd.weight") is None else _positions(b)
    x = b.vit(x, n_pos, "RMS_NORM", learned, lambda t: elementwise("ROPE", t, positions))
    n_tokens = n_pos // m // m
    x = ops.cont(ops.permute(reshape(x, h.n_embd, m, m, n_tokens), 2, 0, 1, 3))
    x = conv_2d(b.weight("mm.patch_merger.weight"), x, m)
    x = b.plus_bias("mm.patch_merger", reshape(x, x.ne[2], n_tokens))
    x = elementwise("UNARY", b.norm(b.linear("mm.model.fc", x), "mm.post_norm", "NORM"))
    return b.finish(b.ffn(x, "mm.up", "mm.down", "mm.gate"))


def _two_frames(b: ClipBuilder) -> Tensor:
    """A still image counts as two frames, each with a convolution of its own: (W, H, E)."""
    pixels = b.inp_raw()
    first, second = (conv_2d(b.weight(f"v.patch_embd.weight{n}"), pixels, b.h.patch_size) for n in ("", ".1"))
    return elementwise("ADD", first, second)


def _in_squares(b: ClipBuilder, x: Tensor) -> Tensor:
    """(W, H, E) as (E, P), the patches of each square behind each other."""
    return _regrouped(b, ops.permute(x, 1, 2, 0, 3))


def _regrouped(b: ClipBuilder, x: Tensor) -> Tensor:
    n_embd, wide, high = b.h.n_embd, b.n_patches_x, b.n_patches_y
    x = reshape(ops.cont(x, n_embd * 2, wide // 2, high, 1), n_embd * 2, wide // 2, 2, high // 2)
    return ops.cont(ops.permute(x, 0, 2, 1, 3), n_embd, wide * high, 1)


def _positions(b: ClipBuilder) -> Tensor:
    return _regrouped(b, b.resized_positions())


def _layer(b: ClipBuilder, x: Tensor, il: int, norm: Norm, positions: Tensor, mask: Tensor | None = None) -> Tensor:
    h, prefix = b.h, f"@.blk.{il}."
    normed = b.norm(x, f"{prefix}ln1", norm)
    q, k, v = (b.linear(f"{prefix}attn_{name}", normed) for name in "qkv")
    q, k, v = (reshape(t, h.n_embd_head, h.n_head, b.n_patches) for t in (q, k, v))
    q, k = (elementwise("ROPE", t, positions) for t in (q, k))
    return _rest(b, x, il, norm, b.attn(il, q, k, v, mask))


def _fused_layer(
    b: ClipBuilder, x: Tensor, il: int, norm: Norm, positions: Tensor, mask: Tensor | None = None
) -> Tensor:
    h, prefix = b.h, f"@.blk.{il}."
    fused = b.linear(f"{prefix}attn_qkv", b.norm(x, f"{prefix}ln1", norm))
    strides = (4, h.n_embd_head * 4, fused.nb[1], fused.nb[1] * b.n_patches)
    heads = (h.n_head, h.n_head_kv, h.n_head_kv)
    q, k, v = (ops.view(fused, (h.n_embd_head, n, b.n_patches), strides) for n in heads)
    q, k = (elementwise("ROPE", t, positions) for t in (q, k))
    return _rest(b, x, il, norm, b.attn(il, q, k, v, mask))


def _rest(b: ClipBuilder, x: Tensor, il: int, norm: Norm, attended: Tensor) -> Tensor:
    residual = elementwise("ADD", attended, x)
    return elementwise("ADD", residual, b.layer_ffn(b.norm(residual, f"@.blk.{il}.ln2", norm), il))
