"""gemma-embedding2: as gemma-embedding, with an input for each layer and a projection at the end.

Source: llama.cpp b11549 src/models/gemma-embedding2.cpp, llama_model_gemma_embedding2::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.attention_alone import AttentionAlone, sees_window
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.gemma3n import plane
from ggufphys.graph.rope import read_rope, read_rope_swa


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to embeddings (n_embd_out, n_outputs)."""
    full = read_rope(b.keys, b.h, "neox")
    rope_swa = read_rope_swa(b.keys, full)
    x = b.inp_embd(token_scale=sqrtf(b.h.n_embd))
    pos = b.inp_pos()
    attend = AttentionAlone(b, Scores(factor=1.0))
    out_ids = b.inp_out_ids()
    inputs = _inputs_per_layer(b, x)
    for il in b.layers():
        residual = x
        rope = rope_swa if sees_window(b, il) else full
        q, k, v = b.qkv(b.rms(x, "attn_norm", il), il)
        q = b.rope(b.rms(q, "attn_q_norm", il), pos, None, rope)
        k = b.rope(b.rms(k, "attn_k_norm", il), pos, None, rope)
        x = attend(q, k, ops.rms_norm(v, b.norm_rms_eps), il)
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(b.rms(x, "post_attention_norm", il), residual)
        x = b.ffn_gated(b.rms(residual, "ffn_norm", il), il, "geglu")
        x = ops.add(b.rms(x, "post_ffw_norm", il), residual)
        gate = ops.unary(b.linear("inp_gate", il, x), "gelu")
        (own,) = b.wanted(out_ids, il, plane(inputs, il))
        x = ops.add(x, b.rms(b.linear("proj", il, ops.mul(gate, own)), "post_norm", il))
        x = ops.mul(x, b.weight("layer_output_scale.weight", il))
    return b.embeddings(b.linear("output", None, b.rms(x, "output_norm")))


def _inputs_per_layer(b: Builder, x: Tensor) -> Tensor:
    """(P, T, n_layer): what the stream gives for each layer."""
    n, n_layer = b.weight("per_layer_proj_norm.weight").ne[0], b.h.n_layer
    projected = ops.scale(ops.mul_mat(b.weight("per_layer_model_proj.weight"), x), 1 / sqrtf(b.h.n_embd))
    projected = b.rms(ops.reshape(projected, n, n_layer, b.batch.n_tokens), "per_layer_proj_norm")
    return ops.cont(ops.permute(projected, 0, 2, 1, 3))
