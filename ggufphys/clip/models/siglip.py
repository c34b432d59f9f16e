"""gemma3, idefics3, lfm2, janus_pro, phi4: a plain vision transformer, and what makes tokens of its patches.

Source: llama.cpp 0c1e570 tools/mtmd/models/siglip.cpp.
"""

from ggufphys.clip.builder import ClipBuilder
from ggufphys.graph import ops
from ggufphys.graph.conv_ops import pool_2d
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import elementwise, reshape, transpose


def build(b: ClipBuilder) -> Graph:
    """From pixels to embeddings (n_embd of the text model, tokens)."""
    name = b.h.projector.name
    x = b.inp_patches()
    learned = b.resized_positions() if name in ("lfm2", "phi4") else b.position_embd()
    x = b.vit(x, b.n_patches, "NORM", learned)
    match name:
        case "gemma3":
            return b.finish(_gemma3(b, x))
        case "idefics3":
            return b.finish(b.mul_mat(b.weight("mm.model.fc.weight"), b.patch_merge(x)))
        case "lfm2":
            x = b.patch_merge(x)
            if b.weight_or_none("mm.input_norm.weight") is not None:
                x = elementwise("MUL", elementwise("NORM", x), b.weight("mm.input_norm.weight"))
            return b.finish(b.ffn(b.plus_bias("mm.input_norm", x), "mm.1", "mm.2"))
        case "janus_pro":
            return b.finish(b.ffn(x, "mm.0", "mm.1"))
        case _:  # phi4
            return b.finish(b.ffn(x, "mm.0", "mm.2"))


def _gemma3(b: ClipBuilder, x: Tensor) -> Tensor:
    x = ops.cont(transpose(x), b.n_patches_x, b.n_patches_x, b.h.n_embd, 1)
    x = pool_2d(x, b.h.n_merge)
    x = ops.cont(transpose(reshape(x, x.ne[0] * x.ne[0], b.h.n_embd, 1)))
    x = elementwise("MUL", elementwise("RMS_NORM", x), b.weight("mm.soft_emb_norm.weight"))
    return ops.mul_mat(ops.cont(transpose(b.weight("mm.input_projection.weight"))), x)
