"""llama4: chunks in most layers, which rotate and norm heads without gains; a sigmoid weights what experts read.

Source: llama.cpp 0c1e570 src/models/llama4.cpp, llama_model_llama4::graph.
"""

from functools import partial

from ggufphys.graph import ops
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import decoder, dense_or_experts
from ggufphys.graph.building.moe import Routing
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models import llama
from ggufphys.graph.rope import read_rope, read_rope_swa_alike

CHUNK = 8192
N_EXPERT_MAVERICK = 128  # the model whose heads are not normed


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    full = read_rope(b.keys, b.h, "norm")
    rope_swa = read_rope_swa_alike(b.keys, full)
    as_llama = b.h.n_swa == 0 and "llama4_as_llama" in b.context.rules
    x = b.inp_embd()
    pos = b.inp_pos()
    floor, factor = (0, 0.0) if b.h.n_swa == 0 else (CHUNK, 0.1)
    temperature = None if as_llama else b.inp_attn_scale(floor, factor, offset=1.0)

    def qkv(x: Tensor, il: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = b.qkv(x, il)
        if not b.h.has_rope(il) and temperature is not None:
            return ops.mul(q, temperature), k, v
        rope, factors = rope_swa if b.has_window(il) else full, b.rope_factors(il)
        q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        if b.h.n_expert != N_EXPERT_MAVERICK:
            q, k = b.norm_rms(q, None), b.norm_rms(k, None)
        return q, k, v

    routing = Routing(gating="sigmoid", weights_first=True)
    return b.head(decoder(b, x, qkv, partial(llama.ffn, b) if as_llama else dense_or_experts(b, routing)))
