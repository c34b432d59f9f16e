"""llava and its kin: mlp, ldp and ldpv2 (MobileVLM), adapter (GLM-Edge). They stop one layer early, or stack layers.

Source: llama.cpp 0c1e570 tools/mtmd/models/llava.cpp.
"""

from ggufphys.clip.builder import ClipBuilder
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import conv_2d, conv_2d_dw, pool_2d
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import concat, elementwise, reshape

_LDP_SIDE = 24  # patches a side that MobileVLM's projector takes for granted


def build(b: ClipBuilder) -> Graph:
    """From pixels to embeddings (n_embd of the text model, tokens)."""
    name = b.h.projector.name
    x = b.inp_patches()
    n_pos = b.n_patches
    if b.weight_or_none("v.class_embd") is not None:
        x, n_pos = b.with_class_token(x), n_pos + 1
    x = elementwise("ADD", x, ops.get_rows(b.position_embd(), b.inp_ids(n_pos)))
    if b.weight_or_none("@.pre_ln.weight") is not None:
        x = b.norm(x, "@.pre_ln", "NORM")
    wanted = b.h.feature_layers
    n_layer = max(wanted) if wanted else b.h.n_layer - (name != "adapter")
    stacked = []
    for il in range(n_layer):
        if il in wanted:
            stacked.append(x)
        x = b.vit_layer(x, il, n_pos, "NORM")
    if b.weight_or_none("@.post_ln.weight") is not None:
        x = b.norm(x, "@.post_ln", "NORM")
    if n_layer in wanted:
        stacked.append(x)
    if stacked:
        x = stacked[0]
        for layer in stacked[1:]:
            x = concat(x, layer, 0)
    if name == "adapter":
        return b.finish(_adapter(b, x))
    x = ops.get_rows(reshape(x, x.ne[0], x.ne[1]), b.inp_ids(b.n_patches))
    return b.finish({"ldp": _ldp, "ldpv2": _ldpv2}.get(name, _mlp)(b, x))


def _mlp(b: ClipBuilder, x: Tensor) -> Tensor:
    if b.weight_or_none("mm.3.weight") is not None:  # Yi: norms between
        x = elementwise("UNARY", b.norm(b.linear("mm.0", x), "mm.1", "NORM"))
        return b.norm(b.linear("mm.3", x), "mm.4", "NORM")
    x = elementwise("UNARY", b.linear("mm.0", x))
    return x if b.weight_or_none("mm.2.weight") is None else b.linear("mm.2", x)


def _ldp(b: ClipBuilder, x: Tensor) -> Tensor:
    x = b.linear("mm.model.mlp.3", elementwise("UNARY", b.linear("mm.model.mlp.1", x)))
    x = ops.permute(x, 1, 0, 2, 3)
    x = ops.cont(x, _LDP_SIDE, _LDP_SIDE, x.ne[1], x.ne[2])
    out = _squeezed(b, "mm.model.mb_block.1.block", x, 1)
    x = elementwise("ADD", x, ops.cont(ops.permute(out, 2, 0, 1, 3)))
    out = _squeezed(b, "mm.model.mb_block.2.block", x, 2)
    return reshape(out, out.ne[0], out.ne[1] * out.ne[2], out.ne[3])


def _squeezed(b: ClipBuilder, stem: str, x: Tensor, stride: int) -> Tensor:
    """Channels by themselves, each times a gate that sees all of the image, then mixed: (C, W, H)."""
    x = conv_2d_dw(b.weight(f"{stem}.0.0.weight"), x, stride, 1)
    x = b.norm(ops.cont(ops.permute(x, 1, 2, 0, 3)), f"{stem}.0.1", "NORM")
    x = elementwise("UNARY", ops.cont(ops.permute(x, 2, 0, 1, 3)))
    width, height, channels, n_batch = x.ne
    gate = reshape(pool_2d(x, width), channels, n_batch)
    for name in ("fc1", "fc2"):
        gate = elementwise("UNARY", b.linear(f"{stem}.1.{name}", gate))
    x = elementwise("MUL", x, reshape(gate, 1, 1, channels, n_batch))
    x = ops.cont(ops.permute(reshape(x, width * height, channels, n_batch), 1, 0, 2, 3))
    x = b.linear(f"{stem}.2.0", x)
    return b.norm(reshape(x, x.ne[0], width, height, x.ne[3]), f"{stem}.2.1", "NORM")


def _ldpv2(b: ClipBuilder, x: Tensor) -> Tensor:
    x = b.linear("mm.model.mlp.2", elementwise("UNARY", b.linear("mm.model.mlp.0", x)))
    x = ops.permute(x, 1, 0, 2, 3)
    x = pool_2d(ops.cont(x, _LDP_SIDE, _LDP_SIDE, x.ne[1], x.ne[2]), 2)
    peg = conv_2d_dw(b.weight("mm.model.peg.0.weight"), x, 1, 1)
    peg = b.plus_bias("mm.model.peg.0", ops.cont(ops.permute(peg, 1, 2, 0, 3)))
    peg = elementwise("ADD", peg, ops.cont(ops.permute(x, 1, 2, 0, 3)))
    return reshape(peg, peg.ne[0], peg.ne[1] * peg.ne[2], peg.ne[3])


def _adapter(b: ClipBuilder, x: Tensor) -> Tensor:
    side = int(x.ne[1] ** 0.5)
    x = ops.permute(x, 1, 0, 2, 3)
    x = conv_2d(b.weight("adapter.conv.weight"), ops.cont(x, side, side, x.ne[1]), 2)
    x = ops.cont(ops.permute(reshape(x, x.ne[0] * x.ne[1], x.ne[2], 1), 1, 0, 2, 3))
    x = b.linear("adapter.linear.linear", b.plus_bias("adapter.conv", x))
    x = elementwise("UNARY", b.norm(x, "adapter.linear.norm1", "NORM"))
    gate, up = b.linear("adapter.linear.gate", x), b.linear("adapter.linear.dense_h_to_4h", x)
    x = b.linear("adapter.linear.dense_4h_to_h", ops.glu(gate, up))
    return concat(concat(b.weight("adapter.boi"), x, 1), b.weight("adapter.eoi"), 1)
