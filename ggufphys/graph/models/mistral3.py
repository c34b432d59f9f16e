"""mistral3: as llama, with queries that grow with the position where the file says so.

Source: llama.cpp 0c1e570 src/models/mistral3.cpp, llama_model_mistral3::graph.
"""

from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts, rotated
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    keys = b.keys
    rope = replace(
        read_rope(keys, b.h, "norm", log_mul=keys.real("rope.scaling.yarn_log_multiplier", 0.0)),
        beta_fast=keys.real("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=keys.real("rope.scaling.yarn_beta_slow", 1.0),
    )
    scale = keys.real("attention.temperature_scale", 0.0)
    x = b.inp_embd()
    pos = b.inp_pos()
    temperature = b.inp_attn_scale(rope.n_ctx_orig, scale) if scale else None
    rotate = rotated(b, rope, pos, factors=True)

    def qkv(x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rotate(x, il)
        return q if temperature is None else ops.mul(q, temperature), k, v

    return b.head(decoder(b, x, qkv, dense_or_experts(b, Routing(norm_weights=True))))
