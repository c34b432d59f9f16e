"""granitehybrid: as granite, with state space layers in place of most attention.

Source: llama.cpp 0c1e570 src/models/granite-hybrid.cpp, llama_model_granite_hybrid::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building import ssm
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.decoder import dense_or_experts
from ggufphys.graph.building.moe import read_routing
from ggufphys.graph.building.recurrent import Recurrent
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph
from ggufphys.graph.models.granite import scaled
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "norm") if b.keys.flag("rope.scaling.finetuned", True) else None
    residual_scale, logit_scale = b.keys.real("residual_scale", 0.0), b.keys.real("logit_scale", 0.0)
    x = b.inp_embd(b.keys.real("embedding_scale", 0.0))
    rs = Recurrent(b)
    attention = attentions(b, Scores(factor=b.keys.real("attention.scale", 0.0) or 1 / sqrtf(b.h.n_embd_head_v or 1)))
    out_ids = b.inp_out_ids()
    pos = b.inp_pos()
    ffn = dense_or_experts(b, read_routing(b.keys, "softmax", norm_weights=True, weights_scale=0.0))
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        if b.recurrent(il) is not None:
            x = ssm.mamba2(b, rs, x, il)
        else:
            q, k, v = b.qkv(x, il)
            if rope is not None:
                factors = b.rope_factors(il)
                q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
            x = attention[b.kv_cache(il)](q, k, v, il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(scaled(x, residual_scale), residual)
        x = ffn(b.rms(residual, "ffn_norm", il), il)
        x = ops.add(scaled(x, residual_scale), residual)
    return b.head(b.rms(x, "output_norm"), scale=1 / logit_scale if logit_scale else 0.0)
