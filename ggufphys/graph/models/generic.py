"""What every decoder has in common: the estimate for architectures that have no model file of their own yet.

Pre-norm attention, windowed where the architecture's rule says so, then a feed-forward layer or experts, whichever the
tensor table holds. Left out is what an architecture adds to that (extra norms, biases, softcaps, shared experts), and
what a recurrent layer, an indexer or an encoder without a cache computes instead of attention.

Error: see docs/physics.md; `basis` says `estimate` wherever this file was used.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import AttentionKV, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.moe import Routing, moe_ffn
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope


def build(b: Builder) -> Graph:
    """A graph of the usual shape, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        residual = x
        x = _norm(b, x, f"blk.{il}.attn_norm")
        cache = b.kv_cache_or_none(il)
        x = b.graph.expand(x) if cache is None else _attention(b, x, pos, il, attention[cache])
        x, residual = b.wanted(out_ids, il, x, residual)
        residual = ops.add(x, residual)
        x = ops.add(_ffn(b, _norm(b, residual, f"blk.{il}.ffn_norm"), il), residual)
    x = _norm(b, x, "output_norm")
    x.is_output = True
    logits = _linear(b, x, h.n_vocab, "output" if b.weight_or_none("output.weight") is not None else "token_embd")
    logits.is_output = True
    b.graph.expand(logits)
    return b.graph


def _attention(b: Builder, x: Tensor, pos: Tensor, il: int, attention: AttentionKV) -> Tensor:
    """Rotated Q and K, V as it is; where only keys are kept they are the values too."""
    h, cache = b.h, b.kv_cache(il)
    n_head, n_head_kv = max(h.n_head[il], 1), max(h.n_head_kv[il], 1)
    n_embd_head_k, n_embd_head_v = cache.n_embd_k_gqa // n_head_kv, cache.n_embd_v_gqa // n_head_kv
    rope = read_rope(b.keys, h, "norm")
    q = b.heads(_linear(b, x, n_embd_head_k * n_head, f"blk.{il}.attn_q"), n_embd_head_k, n_head)
    k = b.heads(_linear(b, x, cache.n_embd_k_gqa, f"blk.{il}.attn_k"), n_embd_head_k, n_head_kv)
    q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
    v = k
    if n_embd_head_v:
        v = b.heads(_linear(b, x, cache.n_embd_v_gqa, f"blk.{il}.attn_v"), n_embd_head_v, n_head_kv)
    return _linear(b, attention.mix(q, k, v, il), h.n_embd, f"blk.{il}.attn_output")


def _linear(b: Builder, x: Tensor, n_out: int, name: str) -> Tensor:
    """A product with the weight of that name."""
    return ops.mul_mat(_weight(b, name, x.ne[0], n_out), x)


def _norm(b: Builder, x: Tensor, name: str) -> Tensor:
    return b.norm_rms(x, _weight(b, name, x.ne[0]))


def _weight(b: Builder, name: str, *ne: int) -> Tensor:
    """The weight that would be named so in the usual shape, whatever the file has under the name, if anything."""
    found = b.weight_or_none(f"{name}.weight")
    if found is not None and found.ne[: len(ne)] == ne:
        return found
    return ops.weight(found.type if found else ops.F32, *ne, name=f"{name}.weight")


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    if all(b.weight_or_none(f"ffn_{part}.weight", il) for part in ("gate_inp", "gate_exps", "up_exps", "down_exps")):
        return moe_ffn(b, x, il, Routing(norm_weights=True))
    up = _linear(b, x, b.h.n_ff[il] or 4 * b.h.n_embd, f"blk.{il}.ffn_up")
    if b.weight_or_none("ffn_gate.weight", il) is not None:
        up = ops.glu(_linear(b, x, up.ne[0], f"blk.{il}.ffn_gate"), up)
    else:
        up = ops.unary(up, "gelu")
    return _linear(b, up, b.h.n_embd, f"blk.{il}.ffn_down")
