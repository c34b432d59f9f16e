"""gemma3n: four streams of which one runs through the layers and corrects the others, inputs for each layer, and late
layers that read the caches of earlier ones.

Legend beside that of `blocks`: A streams, P the width of a layer's own input. Stream 0 is the active one.

Source: llama.cpp 0c1e570 src/models/gemma3n.cpp, llama_model_gemma3n::graph.
"""

from math import inf

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores, attentions
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.shared_kv import owner
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.rope import read_rope, read_rope_swa

N_STREAMS = 4
N_LAYER_KV = 20  # layers from here on read the caches of the last ones before
SPARSITY = 1.6448533535003662  # of a normal distribution, so many deviations above the mean lie 5 %


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to logits (n_vocab, n_outputs)."""
    h = b.h
    full = read_rope(b.keys, h, "neox")
    rope_swa = read_rope_swa(b.keys, full)
    x = b.inp_embd(token_scale=sqrtf(h.n_embd))
    pos = b.inp_pos()
    attention = attentions(b, Scores(factor=1.0))
    at_once = "layer_inputs_late" not in b.context.rules
    inp_per_layer = inputs_per_layer(b, x, rows_per_layer(b), at_once=at_once)
    x = _spread(b, x)
    out_ids = b.inp_out_ids()
    for il in b.layers():
        streams = _predict(b, x, il)
        active = plane(streams, 0)
        x = b.rms(active, "attn_norm", il)
        laurel = ops.add(b.rms(b.linear("laurel_r", il, b.linear("laurel_l", il, x)), "laurel_post_norm", il), x)
        source = owner(b, il, N_LAYER_KV)
        rope = rope_swa if b.has_window(source) else full
        if b.kv_cache_or_none(il) is not None:
            q, k, v = b.qkv(x, il)
            q, k = b.rms(q, "attn_q_norm", il), b.rms(k, "attn_k_norm", il)
            v = b.norm_rms(v, None)
            q, k = b.rope(q, pos, None, rope), b.rope(k, pos, None, rope)
            x = attention[b.kv_cache(source)](q, k, v, il, biased=False)
        else:
            q = b.rope(b.rms(_queries(b, x, il), "attn_q_norm", il), pos, None, rope)
            x = attention[b.kv_cache(source)](q, None, None, il, cache_of=source, biased=False)
        x = ops.add(b.rms(x, "post_attention_norm", il), active)
        residual = ops.scale(ops.add(x, laurel), 1 / sqrtf(2))
        x = _ffn(b, b.rms(residual, "ffn_norm", il), il)
        x = ops.add(b.rms(x, "post_ffw_norm", il), residual)
        streams = _correct(b, streams, x, il)
        x = ops.mul(plane(streams, 0), b.weight("altup_correct_scale.weight", il))
        x = b.linear("proj", il, ops.mul(ops.unary(b.linear("inp_gate", il, x), "gelu"), plane(inp_per_layer, il)))
        x = b.rms(x, "post_norm", il)
        x = ops.concat(plane(streams, 0), ops.add(_rest(streams), x), 2)
    x = ops.get_rows(_gather(b, x), out_ids)
    return b.head(b.rms(x, "output_norm"), softcap=b.keys.real("final_logit_softcapping", 30.0))


def rows_per_layer(b: Builder) -> Tensor:
    """What the tokens' table has for each layer (P*n_layer, T)."""
    tokens = ops.new_input(ops.I32, b.batch.n_tokens, name="tokens")
    return ops.get_rows(b.weight("per_layer_token_embd.weight"), tokens)


def inputs_per_layer(b: Builder, x: Tensor, rows: Tensor, *, at_once: bool) -> Tensor:
    """(P, T, n_layer): an embedding for each layer, from those rows, and what the stream gives for it.

    `at_once` says whether the rows are scaled before anything else.
    """
    n, n_layer, n_tokens = b.weight("per_layer_proj_norm.weight").ne[0], b.h.n_layer, b.batch.n_tokens
    looked_up = ops.scale(ops.reshape(rows, n, n_layer, n_tokens), sqrtf(n))
    looked_up = b.graph.expand(looked_up) if at_once else looked_up
    projected = ops.scale(ops.mul_mat(b.weight("per_layer_model_proj.weight"), x), 1 / sqrtf(b.h.n_embd))
    projected = b.rms(ops.reshape(projected, n, n_layer, n_tokens), "per_layer_proj_norm")
    both = ops.scale(ops.add(projected, looked_up), 1 / sqrtf(2))
    return ops.cont(ops.permute(both, 0, 2, 1, 3))


def plane(x: Tensor, i: int) -> Tensor:
    """Matrix i of a stack."""
    (n0, n1, _, _), row = x.ne, x.nb[0] * x.ne[0]
    return ops.view(x, (n0, n1), (x.nb[0], row, row * n1, row * n1), i * n0 * n1 * x.nb[0])


def stretch(x: Tensor, start: int, width: int) -> Tensor:
    """A dense copy of columns of a matrix."""
    rest = x.nb[1] * x.ne[1]
    return ops.cont(ops.view(x, (width, x.ne[1]), (x.nb[0], x.nb[1], rest, rest), start * x.nb[0]))


def _queries(b: Builder, x: Tensor, il: int) -> Tensor:
    """(D, H, T) of a layer that reads another's keys and values."""
    n_embd_head, n_head = b.h.n_embd_head_k, b.h.n_head[il]
    if b.weight_or_none("attn_qkv.weight", il) is not None:
        q = stretch(b.mul_mat(b.weight("attn_qkv.weight", il), x), 0, n_embd_head * n_head)
    else:
        q = b.mul_mat(b.weight("attn_q.weight", il), x)
    return b.heads(q, n_embd_head, n_head)


def _rest(x: Tensor) -> Tensor:
    """All streams but the active one (E, T, A - 1)."""
    return ops.strided(x, (x.ne[0], x.ne[1], N_STREAMS - 1), x.nb[1:3], x.nb[2])


def _magnitude(x: Tensor) -> Tensor:
    return ops.sqrt(ops.sum_rows(ops.sqr(x)))


def _spread(b: Builder, x: Tensor) -> Tensor:
    """(E, T) to (E, T, A): the others are products of the first, as long as it."""
    target = _magnitude(x)
    others = ops.mul_mat(b.weight("altup_proj.weight"), ops.repeat(x, x.ne[0], x.ne[1], N_STREAMS - 1))
    others = ops.div(ops.mul(others, target), _magnitude(others))
    return ops.concat(x, others, 2)


def _gather(b: Builder, x: Tensor) -> Tensor:
    """(E, T, A) to (E, T): their mean, all as long as the first."""
    target = _magnitude(plane(x, 0))
    others = ops.mul_mat(b.weight("altup_unembd_proj.weight"), _rest(x))
    others = ops.div(ops.mul(others, target), _magnitude(others))
    x = plane(x, 0)
    for i in range(N_STREAMS - 1):
        x = ops.add(x, plane(others, i))
    return ops.scale(x, 1 / N_STREAMS)


def _modalities(b: Builder, x: Tensor, il: int) -> Tensor:
    """(A, T): how much of each stream."""
    router = ops.scale(b.rms(x, "altup_router_norm", il), 1 / b.h.n_embd)
    return ops.unary(ops.mul_mat(b.weight("altup_router.weight", il), router), "tanh")


def _predict(b: Builder, x: Tensor, il: int) -> Tensor:
    """(E, T, A): mixtures of the streams, added to them."""
    mixture = b.linear("altup_predict_coef", il, _modalities(b, plane(x, 0), il))
    mixture = ops.reshape(mixture, N_STREAMS, N_STREAMS, b.batch.n_tokens)
    predictions = ops.mul_mat(ops.cont(ops.permute(x, 1, 2, 0, 3)), mixture)
    return ops.add(ops.cont(ops.permute(predictions, 0, 2, 1, 3)), x)


def _correct(b: Builder, streams: Tensor, x: Tensor, il: int) -> Tensor:
    """All streams, each with its share of what the layer changed in the active one."""
    modalities = _modalities(b, x, il)
    news = ops.sub(x, plane(streams, 0))
    shares = ops.scale(b.linear("altup_correct_coef", il, modalities), 1.0, 1.0)
    shares = ops.cont(ops.transpose(shares), 1, b.batch.n_tokens, N_STREAMS)
    return ops.add(ops.mul(ops.repeat(news, x.ne[0], x.ne[1], N_STREAMS), shares), streams)


def _ffn(b: Builder, x: Tensor, il: int) -> Tensor:
    """A gated GELU; in the first layers of few gates, those far above the mean."""
    up = b.linear("ffn_up", il, x)
    gate = b.linear("ffn_gate", il, x)
    if b.h.sparse_ffn[il]:
        mean = ops.mean(gate)
        squares = ops.sum_rows(ops.sqr(ops.sub(gate, mean)))
        deviation = ops.sqrt(ops.scale(squares, 1 / (gate.ne[0] - 1) if gate.ne[0] > 1 else inf))
        gate = ops.unary(ops.sub(gate, ops.add(mean, ops.scale(deviation, SPARSITY))), "relu")
    return b.linear("ffn_down", il, ops.mul(up, ops.unary(gate, "gelu")))
