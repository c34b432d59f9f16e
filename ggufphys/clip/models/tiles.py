"""internvl, nemotron_v2_vl, llama4, cogvlm, step3vl, resampler (MiniCPM-V): images cut into tiles of one size.

Source: llama.cpp 0c1e570 tools/mtmd/models/internvl.cpp, nemotron-v2-vl.cpp, llama4.cpp, cogvlm.cpp, step3vl.cpp,
minicpmv.cpp.
"""

from typing import Final

from ggufphys.clip.builder import ClipBuilder, Norm
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import conv_2d, im2col
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32, concat, elementwise, repeat, reshape, transpose

_RESAMPLER_HEAD: Final = 128  # head size of MiniCPM-V's resampler


def internvl(b: ClipBuilder) -> Graph:
    """Class token, pixel shuffle, norm and MLP."""
    h, m, n_batch = b.h, b.h.n_merge, b.n_batch
    x = b.inp_patches()
    token = b.weight("v.class_embd")
    x = concat(x, repeat(token, token.ne[0], 1, n_batch, 1), 1)
    norm: Norm = "RMS_NORM" if (h.n_embd, h.n_layer) == (3200, 45) else "NORM"  # the 6B encoder
    x = b.vit(x, b.n_patches + 1, norm, b.position_embd())
    x = ops.cont(ops.view(x, (h.n_embd, b.n_patches, n_batch), (x.nb[0], x.nb[1], x.nb[2], x.nb[2] * n_batch)))
    x = ops.permute(reshape(x, h.n_embd * m, b.n_patches_y // m, b.n_patches_x, n_batch), 0, 2, 1, 3)
    x = ops.cont(x, h.n_embd * m * m, b.n_patches_y // m, b.n_patches_x // m, n_batch)
    x = ops.permute(x, 0, 2, 1, 3)
    x = ops.cont(x, h.n_embd * m * m, x.ne[1] * x.ne[2], x.ne[3])
    return b.finish(b.ffn(b.norm(x, "mm.model.mlp.0", "NORM"), "mm.model.mlp.1", "mm.model.mlp.3"))


def nemotron(b: ClipBuilder) -> Graph:
    """Registers before the patches, squared ReLU behind."""
    registers = b.weight("v.class_embd")
    x = concat(registers, elementwise("ADD", b.inp_patches(), b.position_embd()), 1)
    x = b.vit(x, b.n_patches + registers.ne[1], "NORM")
    x = b.patch_merge(ops.view(x, (b.h.n_embd, b.n_patches), (x.nb[0], x.nb[1], x.nb[1] * b.n_patches, x.nb[3])))
    x = b.linear("mm.model.mlp.1", b.norm(x, "mm.model.mlp.0", "RMS_NORM"))
    return b.finish(b.linear("mm.model.mlp.3", elementwise("SQR", elementwise("UNARY", x))))


def llama4(b: ClipBuilder) -> Graph:
    """Patches by unfolding, two rotations, pixel shuffle, MLP."""
    h, m, patch = b.h, b.h.n_merge, b.h.patch_size
    n_pos = b.n_patches + 1
    pos_h, pos_w = b.inp_ids(n_pos), b.inp_ids(n_pos)
    matrix = b.weight("v.patch_embd.weight")
    x = im2col(reshape(matrix, patch, patch, 3, h.n_embd), b.inp_raw(), patch, 0, F32)
    x = reshape(b.mul_mat(matrix, x), h.n_embd, b.n_patches)
    x = b.with_class_token(x)
    x = b.vit(x, n_pos, "NORM", b.position_embd(), lambda t: b.rope_2d(t, pos_w, pos_h))
    x = ops.view(x, (h.n_embd, b.n_patches))
    x = ops.permute(reshape(x, h.n_embd * m, b.n_patches_x // m, b.n_patches_y, 1), 0, 2, 1, 3)
    x = ops.cont(x, h.n_embd * m * m, b.n_patches_x // m, b.n_patches_y // m, 1)
    x = ops.cont(x, h.n_embd * m * m, b.n_patches // m // m)
    for name in ("mm.model.mlp.1", "mm.model.mlp.2"):
        x = elementwise("UNARY", b.linear(name, x))
    return b.finish(b.linear("mm.model.fc", x))


def cogvlm(b: ClipBuilder) -> Graph:
    """Norms behind attention and feed-forward."""
    h, n_pos = b.h, b.n_patches + 1
    x = elementwise("ADD", b.with_class_token(b.inp_patches()), b.position_embd())
    for il in range(h.n_layer):
        prefix = f"@.blk.{il}."
        fused = b.linear(f"{prefix}attn_qkv", x)
        strides = (4, h.n_embd_head * 4, fused.nb[1], fused.nb[1] * n_pos)
        q, k, v = (ops.view(fused, (h.n_embd_head, h.n_head, n_pos), strides) for _ in range(3))
        x = elementwise("ADD", b.norm(b.attn(il, q, k, v), f"{prefix}ln1", "NORM"), x)
        x = elementwise("ADD", b.norm(b.layer_ffn(x, il), f"{prefix}ln2", "NORM"), x)
    x = b.linear("mm.model.fc", ops.view(x, (h.n_embd, b.n_patches)))
    x = elementwise("UNARY", b.norm(x, "mm.post_fc_norm", "NORM"))
    up, gate = b.linear("mm.up", x), b.linear("mm.gate", x)
    x = b.linear("mm.down", ops.glu(gate, up))
    return b.finish(concat(concat(b.weight("v.boi"), x, 1), b.weight("v.eoi"), 1))


def step3vl(b: ClipBuilder) -> Graph:
    """Two convolutions halve each side twice."""
    pos_h, pos_w = b.inp_ids(b.n_patches), b.inp_ids(b.n_patches)
    x = b.vit(b.inp_patches(), b.n_patches, "NORM", b.resized_positions(), lambda t: b.rope_2d(t, pos_w, pos_h))
    x = ops.cont(ops.permute(x, 1, 0, 2, 3), b.n_patches_x, b.n_patches_y, b.h.n_embd)
    for name in ("mm.0", "mm.1"):
        x = conv_2d(b.weight(f"{name}.weight"), x, 2, 1)
        if b.weight_or_none(f"{name}.bias") is not None:
            width, height, channels, _ = x.ne
            x = b.plus_bias(name, ops.cont(transpose(reshape(x, width * height, channels))))
            x = reshape(ops.cont(transpose(x)), width, height, channels)
    x = reshape(x, x.ne[0] * x.ne[1], x.ne[2], x.ne[3])
    return b.finish(ops.mul_mat(b.weight("mm.model.fc.weight"), ops.cont(ops.permute(x, 1, 0, 2, 3))))


def resampler(b: ClipBuilder) -> Graph:
    """A fixed number of queries attends to the patches."""
    n_pos = b.n_patches
    n_embd = b.weight("resampler.proj.weight").ne[0]
    omega = ops.new_input(F32, n_embd // 4)
    pos_h, pos_w = ops.new_input(F32, 1, n_pos), ops.new_input(F32, 1, n_pos)
    learned = ops.get_rows(b.position_embd(), b.inp_ids(n_pos))
    x = b.vit(b.inp_patches(), n_pos, "NORM", learned)
    q = b.norm(b.weight("resampler.query"), "resampler.ln_q", "NORM")
    v = b.norm(b.linear("resampler.kv", x), "resampler.ln_kv", "NORM")
    omega = repeat(omega, omega.ne[0], n_pos, 1, 1)
    halves = []
    for pos in (pos_w, pos_h):
        theta = elementwise("MUL", omega, pos)
        halves.append(concat(elementwise("SIN", theta), elementwise("COS", theta), 0))
    k = elementwise("ADD", v, concat(halves[0], halves[1], 0))
    q, k, v = (b.linear(f"resampler.attn.{name}", t) for name, t in (("q", q), ("k", k), ("v", v)))
    n_head = n_embd // _RESAMPLER_HEAD
    q = reshape(q, _RESAMPLER_HEAD, n_head, b.h.minicpmv_query_num)
    k, v = (reshape(t, _RESAMPLER_HEAD, n_head, n_pos) for t in (k, v))
    x = b.norm(b.attn(-1, q, k, v, out="resampler.attn.out"), "resampler.ln_post", "NORM")
    return b.finish(b.linear("resampler.proj", x))


def minicpmv4_6(b: ClipBuilder) -> Graph:
    """Squares of patches are merged in the middle of the transformer and again at its end."""
    h, n_pos = b.h, b.n_patches
    n_half = (b.n_patches_x // 2) * (b.n_patches_y // 2)
    twice = h.n_merge != 2
    n_out = (b.n_patches_x // 2 // 2) * (b.n_patches_y // 2 // 2) if twice else n_half
    learned = ops.get_rows(b.position_embd(), b.inp_ids(n_pos))
    if twice:
        order, back = b.inp_ids(n_pos), b.inp_ids(n_pos)
        mask = ops.cast(ops.new_input(F32, n_pos, n_pos), ops.F16)
        half_ids = [b.inp_ids(n_half) for _ in range(4)]
    out_ids = [b.inp_ids(n_out) for _ in range(4)]
    x = elementwise("ADD", b.inp_patches(), learned)
    if b.weight_or_none("@.pre_ln.weight") is not None:
        x = b.norm(x, "@.pre_ln", "NORM")
    first = (h.wa_layers or (0,))[0] + 1 if twice else h.n_layer
    for il in range(first):
        x = b.vit_layer(x, il, n_pos, "NORM")
    if twice:
        residual = x
        x = ops.get_rows(b.norm(x, "v.vit_merger.ln1", "NORM"), order)
        q, k, v = (b.linear(f"v.vit_merger.attn_{name}", x) for name in "qkv")
        q, k, v = (reshape(t, h.n_embd_head, h.n_head, n_pos) for t in (q, k, v))
        x = ops.get_rows(b.attn(-1, q, k, v, mask, out="v.vit_merger.attn_out"), back)
        x = elementwise("ADD", x, residual)
        parts = [ops.get_rows(x, ids) for ids in half_ids]
        mean = elementwise("ADD", elementwise("ADD", elementwise("ADD", *parts[:2]), parts[2]), parts[3])
        mean = elementwise("SCALE", mean)
        x = b.norm(_side_by_side(parts), "v.vit_merger.ds_ln", "NORM")
        x = elementwise("ADD", b.ffn(x, "v.vit_merger.ds_ffn_up", "v.vit_merger.ds_ffn_down"), mean)
        for il in range(first, h.n_layer):
            x = b.vit_layer(x, il, n_half, "NORM")
    if b.weight_or_none("@.post_ln.weight") is not None:
        x = b.norm(x, "@.post_ln", "NORM")
    x = b.norm(_side_by_side([ops.get_rows(x, ids) for ids in out_ids]), "mm.input_norm", "NORM")
    return b.finish(b.ffn(x, "mm.up", "mm.down"))


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return concat(concat(concat(parts[0], parts[1], 0), parts[2], 0), parts[3], 0)
