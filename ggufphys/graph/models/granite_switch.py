"""graniteswitch: granite with adapters in the file; a head of attention finds which of them each token is to use.

That head looks for the last token that switches: what it finds is the adapter's number, 0 for none, which chooses
among the stacked matrices as a router does among experts.

Source: llama.cpp 0c1e570 src/models/granite-switch.cpp, llama_model_granite_switch::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV, Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.floats import quotient, sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h, keys, n_tokens = b.h, b.keys, b.batch.n_tokens
    rope = read_rope(keys, h, "norm") if keys.flag("rope.scaling.finetuned", True) else None
    residual_scale, logit_scale = keys.real("residual_scale", 0.0), keys.real("logit_scale")
    x = ops.get_rows(b.weight("token_embd.weight"), ops.new_input(ops.I32, n_tokens, name="switched_tokens"))
    if embedding_scale := keys.real("embedding_scale", 0.0):
        x = ops.scale(x, embedding_scale)
    pos = b.inp_pos()
    factor = keys.real("attention.scale", 0.0) or 1 / sqrtf(h.n_embd_head_v)
    attention = attentions(b, Scores(factor=factor))[b.kv_cache(0)]
    adapters = _adapters(b, attention)
    out_ids = b.inp_out_ids()

    def added(x: Tensor) -> Tensor:
        return ops.scale(x, residual_scale) if residual_scale else x

    for il in b.layers():
        residual = x
        normed = b.rms(x, "attn_norm", il)
        q, k, v = b.qkv_flat(normed, il)
        q, k, v = (
            b.heads(ops.add(part, _delta(b, f"attn_{name}", il, normed, adapters)), h.n_embd_head_k, n)
            for name, part, n in (("q", q, h.n_head[il]), ("k", k, h.n_head_kv[il]), ("v", v, h.n_head_kv[il]))
        )
        if rope is not None:
            factors = b.rope_factors(il)
            q, k = b.rope(q, pos, factors, rope), b.rope(k, pos, factors, rope)
        x = _switched(b, "attn_output", il, attention.mix(q, k, v, il), adapters)
        if b.is_last(il):
            x, residual = b.wanted(out_ids, il, x, residual)
            adapters = ops.get_rows(ops.reshape(adapters, 1, n_tokens), out_ids)
            adapters = ops.reshape(adapters, b.batch.n_outputs)
        residual = ops.add(added(x), residual)
        x = b.rms(residual, "ffn_norm", il)
        gate, up = (_switched(b, name, il, x, adapters) for name in ("ffn_gate", "ffn_up"))
        x = _switched(b, "ffn_down", il, ops.mul(ops.unary(gate, "silu"), up), adapters)
        x = ops.add(added(x), residual)
    return b.head(b.rms(x, "output_norm"), scale=quotient(1, logit_scale))


def _adapters(b: Builder, attention: AttentionKV) -> Tensor:
    """The number of each token's adapter (T,), whose head has one element that counts."""
    n_tokens, router = b.batch.n_tokens, b.h.n_layer
    q, k, v = (
        ops.pad(ops.reshape(signal, 1, 1, n_tokens), b.h.n_embd_head_v, 1, n_tokens)
        for signal in (ops.new_input(ops.F32, n_tokens, name=f"router_{part}") for part in "qkv")
    )
    found = attention.mix(q, k, v, router, scores=Scores(factor=1.0))
    b.graph.probed.update((node, router) for node in b.graph.nodes if node.op == "FLASH_ATTN_EXT")  # no other's yet
    number = ops.reshape(ops.cont(ops.strided(found, (1, n_tokens), (found.nb[1],))), n_tokens)
    number = ops.clamp(number, 0.0, float(b.keys.integer("adapters.count")))
    return ops.cast(ops.unary(number, "round"), ops.I32)


def _switched(b: Builder, name: str, il: int, x: Tensor, adapters: Tensor) -> Tensor:
    """A product with a weight, and what each token's adapter adds."""
    return ops.add(ops.mul_mat(b.weight(f"{name}.weight", il), x), _delta(b, name, il, x, adapters))


def _delta(b: Builder, name: str, il: int, x: Tensor, adapters: Tensor) -> Tensor:
    """B (a x) of the adapters that the tokens chose: (n_out, T)."""
    n_tokens = x.ne[1]
    rows, chosen = ops.reshape(x, x.ne[0], 1, n_tokens), ops.reshape(adapters, 1, n_tokens)
    for matrix in "ab":
        rows = ops.mul_mat_id(b.weight(f"{name}.lora_{matrix}", il), rows, chosen)
    return ops.reshape(rows, rows.ne[0], n_tokens)
