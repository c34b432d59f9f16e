"""chameleon: heads of queries and keys are normed with gains of their own; logits of image tokens are never the best.

Models with `swin_norm` norm what layers add, not what they read; the feed-forward part reads what attention adds alone.

Source: llama.cpp 0c1e570 src/models/chameleon.cpp, llama_model_chameleon::graph.
"""

from typing import Final

from ggufphys.errors import GGUFError
from ggufphys.graph import ops
from ggufphys.graph.building.attention import attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope

IMAGE_TOKENS: Final = range(4, 8196)
LEAST: Final = -(2 - 2**-23) * 2.0**127  # of a float's values, -FLT_MAX
HEAD_EPS: Final = 1e-5  # of the norms of heads, whatever the file says


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    rope, normed_behind = read_rope(b.keys, b.h, "norm"), b.keys.flag("swin_norm", False)
    x = b.inp_embd()
    pos = b.inp_pos()
    attention = attentions(b)
    out_ids = b.inp_out_ids()

    def before(x: Tensor, name: str, il: int) -> Tensor:
        return x if normed_behind else b.rms(x, name, il)

    def behind(x: Tensor, name: str, il: int) -> Tensor:
        return b.rms(x, name, il) if normed_behind else x

    for il in b.layers():
        residual = x
        q, k, v = b.qkv(before(x, "attn_norm", il), il)
        q, k = (_heads_normed(b, part, name, il) for part, name in ((q, "attn_q_norm"), (k, "attn_k_norm")))
        x = attention[b.kv_cache(il)](b.rope(q, pos, None, rope), b.rope(k, pos, None, rope), v, il, biased=False)
        x, residual = b.wanted(out_ids, il, x, residual)
        x = behind(x, "attn_norm", il)
        residual = ops.add(x, residual)
        x = b.ffn_gated(x if normed_behind else b.rms(residual, "ffn_norm", il), il, biased=False)
        x = ops.add(behind(x, "ffn_norm", il), residual)
    logits = b.logits(b.rms(x, "output_norm"))
    if logits.ne[0] * b.context.n_seq_max < len(IMAGE_TOKENS):  # of a decode step, which is reserved for, too
        raise GGUFError(
            f"output.weight has {logits.ne[0]} rows, expected as many as there are image tokens, {len(IMAGE_TOKENS)}, "
            "or more: llama.cpp aborts"
        )
    least = ops.clamp(Tensor("NONE", ops.F32, (len(IMAGE_TOKENS),)), LEAST, LEAST)
    return b.embeddings(ops.set_at(logits, least, IMAGE_TOKENS.start))


def _heads_normed(b: Builder, x: Tensor, name: str, il: int) -> Tensor:
    x = ops.mul(ops.norm(x, HEAD_EPS), b.weight(f"{name}.weight", il))
    bias = b.weight_or_none(f"{name}.bias", il)
    x = x if bias is None else ops.add(x, bias)
    return ops.reshape(x, *x.ne[:3]) if "chameleon_shapes_behind_norms" in b.context.rules else x
