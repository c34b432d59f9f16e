"""minimax-m3: attention over chosen blocks behind leading dense layers, experts beside a shared one.

Source: llama.cpp 0c1e570 src/models/minimax-m3.cpp, llama_model_minimax_m3::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions, ends_rotating
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import OAI, OAI_EXPERTS, Routing, moe_ffn, read_routing
from ggufphys.graph.building.msa import BlockSparse, is_sparse
from ggufphys.graph.building.msa_cells import BlockSparseOfCells
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope = read_rope(b.keys, b.h, "neox")
    routing = read_routing(b.keys)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1 / sqrtf(b.h.n_embd_head_v)))
    has_indexer = len({len(caches) for caches in b.caches} - {1}) > 0  # else all layers are dense
    kind = BlockSparseOfCells if "blocks_of_cells" in b.context.rules else BlockSparse
    full = attention[b.kv_cache(0)]
    sparse = kind(b, full, rope) if has_indexer and is_sparse(b) else None
    rotates = full.k_rot is not None or full.v_rot is not None
    if sparse is not None and rotates and "chosen_not_rotated" in b.context.rules:
        raise ends_rotating(b, "blocks are chosen", "flash_attn off, or a build from b10229 on")
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        q, k, v = b.qkv(x, il)
        q, k = b.rms(q, "attn_q_norm", il), b.rms(k, "attn_k_norm", il)
        q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
        has_experts = b.weight_or_none("ffn_gate_inp.weight", il) is not None
        if sparse is not None and has_experts:  # those layers have an indexer
            x = sparse.mix(x, q, k, v, pos, il)
        else:
            x = attention[b.kv_cache(il)].mix(q, k, v, il)
        x, residual = b.wanted(out_ids, il, b.linear("attn_output", il, x, biased=False), residual)
        residual = ops.add(x, residual)
        x = b.rms(residual, "ffn_norm", il)
        x = ops.add(_experts(b, x, routing, il) if has_experts else _dense(b, x, il), residual)
    return b.head(b.rms(x, "output_norm"))


def _experts(b: Builder, x: Tensor, routing: Routing, il: int) -> Tensor:
    out = moe_ffn(b, x, il, routing, OAI_EXPERTS)
    return ops.add(out, _dense(b, x, il, "_shexp"))


def _dense(b: Builder, x: Tensor, il: int, suffix: str = "") -> Tensor:
    up, gate = (b.mul_mat(b.weight(f"ffn_{name}{suffix}.weight", il), x) for name in ("up", "gate"))
    return b.mul_mat(b.weight(f"ffn_down{suffix}.weight", il), ops.glu(gate, up, "swiglu_oai", *OAI))
