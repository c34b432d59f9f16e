"""pixtral, lightonocr, kimivl, kimik25, paddleocr, dots_ocr, gemma4v, gemma4uv, hunyuanvl: images of any size.

Source: llama.cpp 0c1e570 tools/mtmd/models/pixtral.cpp, kimivl.cpp, kimik25.cpp, paddleocr.cpp, dotsocr.cpp,
gemma4v.cpp, gemma4uv.cpp, hunyuanvl.cpp.
"""

from ggufphys.clip.builder import ClipBuilder
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import conv_2d, im2col, interpolate, pool_2d
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32, concat, elementwise, repeat, reshape, transpose


def pixtral(b: ClipBuilder) -> Graph:
    """Two rotations, an optional merger, and a token for each end of a row."""
    h, m = b.h, b.h.n_merge
    pos_h, pos_w = b.inp_ids(b.n_patches), b.inp_ids(b.n_patches)
    x = b.vit(b.inp_patches(), b.n_patches, "RMS_NORM", None, lambda t: b.rope_2d(t, pos_h, pos_w))
    if b.weight_or_none("mm.patch_merger.weight") is not None:
        x = elementwise("MUL", elementwise("RMS_NORM", x), b.weight("mm.input_norm.weight"))
        x = ops.cont(ops.permute(reshape(x, h.n_embd, b.n_patches_x, b.n_patches_y), 2, 0, 1, 3))
        kernel = ops.view(x, (m, m, x.ne[2]), (x.nb[0], 0, 0, 0))
        x = im2col(kernel, x, m, 0, F32)
        x = b.mul_mat(b.weight("mm.patch_merger.weight"), reshape(x, x.ne[0], x.ne[1] * x.ne[2]))
    x = b.ffn(x, "mm.1", "mm.2")
    row_end = b.weight_or_none("v.token_embd.img_break")
    if row_end is not None:
        columns, rows = b.n_patches_x // m, b.n_patches_y // m
        ends = Tensor("NONE", x.type, (x.ne[0], 1, rows))
        ends = elementwise("ADD", elementwise("SCALE", ends), row_end)
        x = concat(reshape(x, x.ne[0], columns, rows), ends, 1)
        x = ops.view(x, (x.ne[0], columns * rows + rows - 1))
    return b.finish(x)


def kimi(b: ClipBuilder) -> Graph:
    """Kimivl and kimik25: learned positions, interpolated, and two rotations; norm behind the merger."""
    pos_h, pos_w = b.inp_ids(b.n_patches), b.inp_ids(b.n_patches)
    x = b.inp_patches()
    if b.h.projector.name == "kimik25":
        x, learned = elementwise("ADD", x, _positions_3d(b)), None
    else:
        learned = b.resized_positions()
    x = b.vit(x, b.n_patches, "NORM", learned, lambda t: b.rope_2d(t, pos_w, pos_h))
    x = b.patch_merge(x)
    width, n_tokens = x.ne[0], x.ne[1]
    x = ops.view(x, (b.h.n_embd, n_tokens * b.h.n_merge**2))
    x = b.norm(x, "mm.input_norm", "NORM")
    return b.finish(b.ffn(ops.view(x, (width, n_tokens)), "mm.1", "mm.2"))


def _positions_3d(b: ClipBuilder) -> Tensor:
    learned = b.position_embd()
    if (b.n_patches_x, b.n_patches_y) == learned.ne[1:3]:
        return ops.cont(learned, b.h.n_embd, b.n_patches)
    x = interpolate(ops.permute(learned, 2, 1, 0, 3), b.n_patches_y, b.n_patches_x)
    return ops.cont(ops.permute(x, 2, 1, 0, 3), b.h.n_embd, b.n_patches)


def paddleocr(b: ClipBuilder) -> Graph:
    """Four positions a patch; norm before the merger."""
    positions = b.inp_ids(4 * b.n_patches)
    learned = b.resized_positions()
    x = b.vit(b.inp_patches(), b.n_patches, "NORM", learned, lambda t: elementwise("ROPE", t, positions))
    return b.finish(b.ffn(b.patch_merge(b.norm(x, "mm.input_norm", "NORM")), "mm.1", "mm.2"))


def dots_ocr(b: ClipBuilder) -> Graph:
    """Four positions a patch, RMS norms; the last one counts as the projector's."""
    positions = b.inp_ids(4 * b.n_patches)

    def rotated(x: Tensor) -> Tensor:
        return elementwise("ROPE", x, positions)

    x = b.vit(b.inp_patches(), b.n_patches, "RMS_NORM", None, rotated, post_ln="mm.post_norm")
    return b.finish(b.ffn(b.patch_merge(b.norm(x, "mm.input_norm", "NORM")), "mm.0", "mm.2"))


class _Clamped(ClipBuilder):
    """Every product of gemma4v is clamped before and behind."""

    def mul_mat(self, w: Tensor, x: Tensor) -> Tensor:
        return elementwise("CLAMP", ops.mul_mat(w, elementwise("CLAMP", x)))


def gemma4v(plain: ClipBuilder) -> Graph:
    """Positions looked up for each axis, squares of patches averaged."""
    b = _Clamped(plain.h, plain.tensors, (plain.nx, plain.ny), plain.n_batch)
    h, m = b.h, b.h.n_merge
    pixels = elementwise("SCALE", b.inp_raw())
    x = conv_2d(b.weight("v.patch_embd.weight"), pixels, h.patch_size)
    x = ops.cont(transpose(reshape(x, b.n_patches, h.n_embd, b.n_batch)))
    pos_x, pos_y = b.inp_ids(b.n_patches), b.inp_ids(b.n_patches)
    x = _plus_axes(b, x, pos_x, pos_y)
    x = b.vit(x, b.n_patches, "RMS_NORM", None, lambda t: b.rope_2d(t, pos_x, pos_y), v_normed=True)
    x = pool_2d(ops.cont(transpose(x), b.n_patches_x, b.n_patches_y, h.n_embd, b.n_batch), m)
    x = ops.cont(transpose(reshape(x, (b.n_patches_x // m) * (b.n_patches_y // m), h.n_embd, b.n_batch)))
    x = elementwise("SCALE", x)
    bias, scale = b.weight_or_none("v.std_bias"), b.weight_or_none("v.std_scale")
    if bias is not None and scale is not None:
        x = elementwise("MUL", elementwise("SUB", x, bias), scale)
    return b.finish(b.linear("mm.input_projection", elementwise("RMS_NORM", x)))


def gemma4uv(b: ClipBuilder) -> Graph:
    """No transformer at all: patches are normed, embedded, and projected."""
    h = b.h
    kernel = Tensor("NONE", F32, (h.patch_size, h.patch_size, 3))
    x = im2col(kernel, b.inp_raw(), h.patch_size, 0, F32)
    x = b.norm(reshape(x, x.ne[0], x.ne[1] * x.ne[2] * x.ne[3]), "v.patch_norm.1", "NORM")
    x = b.norm(b.linear("v.patch_embd", x), "v.patch_norm.2", "NORM")
    pos_x, pos_y = b.inp_ids(b.n_patches), b.inp_ids(b.n_patches)
    x = b.norm(_plus_axes(b, x, pos_x, pos_y), "v.patch_norm.3", "NORM")
    return b.finish(b.linear("mm.input_projection", elementwise("RMS_NORM", x)))


def _plus_axes(b: ClipBuilder, x: Tensor, pos_x: Tensor, pos_y: Tensor) -> Tensor:
    table = b.position_embd()
    n_embd, n_pos = table.ne[0], table.ne[1]
    by_x, by_y = (ops.get_rows(ops.view(table, (n_embd, n_pos)), pos) for pos in (pos_x, pos_y))
    return elementwise("ADD", elementwise("ADD", x, by_x), by_y)


def hunyuanvl(b: ClipBuilder) -> Graph:
    """Positions computed by the caller; two convolutions, a token for each end of a row, begin and end."""
    h, m, wide, high = b.h, b.h.n_merge, b.n_patches_x, b.n_patches_y
    learned = ops.new_input(F32, h.n_embd, wide * high)
    x = b.vit(b.inp_patches(), b.n_patches, "NORM", learned)
    x = b.norm(x, "mm.pre_norm", "RMS_NORM", bias=False)
    x = ops.cont(ops.permute(reshape(x, h.n_embd, wide, high), 2, 0, 1, 3))
    x = _conv_with_bias(b, "mm.0", x, m)
    x = _conv_with_bias(b, "mm.2", elementwise("UNARY", x), 1)
    channels = x.ne[2]
    newline = repeat(reshape(b.weight("v.image_newline"), 1, 1, channels, 1), 1, high // m, channels, 1)
    x = ops.permute(concat(x, newline, 0), 1, 2, 0, 3)
    x = b.linear("mm.model.fc", ops.cont(x, channels, (wide // m + 1) * (high // m)))
    begin, end = (b.weight(f"mm.image_{name}") for name in ("begin", "end"))
    x = concat(concat(reshape(begin, begin.ne[0], 1), x, 1), reshape(end, end.ne[0], 1), 1)
    return b.finish(b.norm(x, "mm.post_norm", "RMS_NORM", bias=False))


def _conv_with_bias(b: ClipBuilder, name: str, x: Tensor, stride: int) -> Tensor:
    x = conv_2d(b.weight(f"{name}.weight"), x, stride)
    bias = b.weight_or_none(f"{name}.bias")
    return x if bias is None else elementwise("ADD", x, reshape(bias, 1, 1, bias.ne[0]))
