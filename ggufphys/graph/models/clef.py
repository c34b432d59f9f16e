"""clef: qwen35's layers, which keep nothing, and a head that weighs options of questions within the prompt.

A batch that asks nothing, as all that are reserved for, has one question with one option, both empty.
Legend: E n_embd, H the head's width, T tokens.
Source: llama.cpp b11434 src/models/clef.cpp, llama_model_clef::graph.
"""

from ggufphys.graph import ops
from ggufphys.graph.building.attention import Scores
from ggufphys.graph.building.attention_alone import AttentionAlone
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.building.delta_net import gated_norm, l2_norm
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.models.qwen3next import gated_attention
from ggufphys.graph.ops import F32, I32
from ggufphys.graph.rope import read_rope, read_sections
from ggufphys.graph.ssm_ops import gated_delta_net, ssm_conv

EPS = 1e-12  # of the head's norms of vectors


def build(b: Builder) -> Graph:
    """The whole graph, from token ids to a score for each token (1, T), of which those of options count."""
    rope = read_rope(b.keys, b.h, "imrope", sections=read_sections(b.keys))
    x = b.inp_embd()
    pos = b.inp_pos(rope.n_pos_per_embd)
    factor = b.keys.real("attention.scale", 0.0) or 1 / sqrtf(b.h.n_embd_head_v)
    attention = AttentionAlone(b, Scores(factor=factor))
    for il in b.layers():
        residual = x
        x = b.rms(x, "attn_norm", il)
        if b.weight_or_none("ssm_conv1d.weight", il) is not None:
            x = _linear_attention(b, x, il)
        else:
            x = gated_attention(b, attention, x, pos, rope, il, reshaped=False)
        residual = ops.add(x, residual)
        x = ops.add(b.ffn_gated(b.rms(residual, "post_attention_norm", il), il), residual)
    scores = _Head(b, b.rms(x, "output_norm")).scores()
    scores = ops.pad(scores, scores.ne[0], b.batch.n_tokens)
    return b.embeddings(ops.add(scores, ops.new_input(F32, 1, name="status")))


def _linear_attention(b: Builder, x: Tensor, il: int) -> Tensor:
    """A gated delta net over the whole batch, from zeros: (E, T) to (E, T)."""
    h, n_tokens = b.h, b.batch.n_tokens
    n_v, n_k, d_k = b.keys.integer("ssm.time_step_rank"), h.ssm_n_group, h.ssm_d_state
    d_v = h.ssm_d_inner // n_v
    qkv = b.linear("attn_qkv", il, x, biased=False)
    qkv = ops.reshape(qkv, qkv.ne[0], n_tokens, 1)
    z = b.linear("attn_gate", il, x, biased=False)
    beta = ops.unary(ops.reshape(b.linear("ssm_beta", il, x, biased=False), 1, n_v, n_tokens, 1), "sigmoid")
    alpha = ops.reshape(b.linear("ssm_alpha", il, x, biased=False), n_v, n_tokens, 1)
    gate = ops.unary(ops.add(alpha, b.weight("ssm_dt.bias", il)), "softplus")
    gate = ops.reshape(ops.mul(gate, b.weight("ssm_a", il)), 1, n_v, n_tokens, 1)

    kernel = b.weight("ssm_conv1d.weight", il)
    before = _zeros(kernel.ne[0] - 1, h.ssm_d_inner + 2 * n_k * d_k, 1)
    x = ops.unary(ssm_conv(ops.concat(before, ops.transpose(qkv), 0), kernel), "silu")
    size, per_token = x.nb[0], x.nb[1]
    strides = (per_token, per_token * n_tokens)
    q = ops.strided(x, (d_k, n_k, n_tokens, 1), (d_k * size, *strides))
    k = ops.strided(x, (d_k, n_k, n_tokens, 1), (d_k * size, *strides), d_k * n_k * size)
    v = ops.strided(x, (d_v, n_v, n_tokens, 1), (d_v * size, *strides), 2 * d_k * n_k * size)
    q, k = l2_norm(b, q), l2_norm(b, k)

    result = gated_delta_net(q, k, v, gate, beta, _zeros(d_v, d_v, n_v, 1), 1)
    row = result.nb[0] * d_v
    out = ops.strided(result, v.ne, (row, row * n_v, row * n_v * n_tokens))
    out = gated_norm(b, out, ops.reshape(z, d_v, n_v, n_tokens, 1), il)
    out = b.linear("ssm_out", il, ops.reshape(out, d_v * n_v, n_tokens, 1), biased=False)
    return ops.reshape(out, h.n_embd, n_tokens)


def _zeros(*ne: int) -> Tensor:
    return ops.elementwise("FILL", Tensor("NONE", F32, ne), params=(0.0,))


class _Head:
    """The head over the last hidden states (E, T), with the inputs that say where questions and options are."""

    def __init__(self, b: Builder, hidden: Tensor) -> None:
        n_tokens, n_questions, n_options = b.batch.n_tokens, 1, 1
        self.b = b
        b.stack = "dec.blk"
        self.tokens = ops.new_input(I32, n_tokens, name="decision_tokens")
        self.pool_q = ops.new_input(F32, n_tokens, n_questions, name="pool_questions")
        self.pool_o = ops.new_input(F32, n_tokens, n_options, name="pool_options")
        self.types = ops.new_input(I32, n_questions, name="question_type")
        self.owners = ops.new_input(I32, n_options, name="option_question")
        self.mask = ops.new_input(F32, n_options, n_questions, name="option_mask")
        self.hidden = b.layer_norm(hidden, "decision.hidden_norm")

    def scores(self) -> Tensor:
        """A score for each option (1, n_options)."""
        b, hidden = self.b, self.hidden
        memory = self.project("memory", hidden)
        last = ops.strided(hidden, (b.h.n_embd, 1), (hidden.nb[1],), (b.batch.n_tokens - 1) * hidden.nb[1])
        by_token = ops.cont(ops.transpose(hidden))
        question, in_context = ops.mul_mat(by_token, self.pool_q), ops.mul_mat(by_token, self.pool_o)
        words = ops.get_rows(b.weight_or_none("output.weight") or b.weight("token_embd.weight"), self.tokens)
        lexical = ops.mul_mat(ops.cont(ops.transpose(words)), self.pool_o)

        options = ops.add(self.project("option_context", in_context), self.project("option_lexical", lexical))
        options = ops.add(options, ops.get_rows(self.project("option_question", question), self.owners))
        n_routing = b.keys.integer("decision.routing_block_count")
        for il in range(n_routing):
            x = b.layer_norm(options, "cross_attn_norm", il)
            options = ops.add(options, self.attend(x, b.layer_norm(memory, "cross_attn_norm_kv", il), "cross_attn", il))
            options = ops.add(options, self.ffn(options, il))

        fields = self.fields(question, options, last)
        for il in range(n_routing, n_routing + b.keys.integer("decision.block_count")):
            x = b.layer_norm(fields, "attn_norm", il)
            fields = ops.add(fields, self.attend(x, x, "attn", il))
            x = b.layer_norm(fields, "cross_attn_norm", il)
            fields = ops.add(fields, self.attend(x, memory, "cross_attn", il))
            fields = ops.add(fields, self.ffn(fields, il))
        fields = b.layer_norm(fields, "decision.field_norm")

        anchor = ops.get_rows(ops.l2_norm(ops.add(question, last), EPS), self.owners)
        prior = ops.sum_rows(ops.mul(ops.l2_norm(lexical, EPS), anchor))
        joint = self.joint(b.layer_norm(options, "decision.option_norm"), ops.get_rows(fields, self.owners))
        return ops.add(ops.mul(prior, self.scale(0)), ops.mul(joint, self.scale(2)))

    def project(self, name: str, x: Tensor) -> Tensor:
        """(E, n) to (H, n)."""
        return ops.mul_mat(self.b.weight(f"decision.proj_{name}.weight"), x)

    def scale(self, i: int) -> Tensor:
        """One of the three numbers that weigh the parts of a score."""
        scales = self.b.weight("decision.scales")
        return ops.view(scales, (1,), offset=i * scales.nb[0])

    def attend(self, q: Tensor, kv: Tensor, name: str, il: int) -> Tensor:
        """Attention of Q (H, n_q) to all of (H, n_kv)."""
        n_head, width = self.b.keys.integer("decision.head_count"), q.ne[0]
        d, n_q, n_kv = width // n_head, q.ne[1], kv.ne[1]
        queries, keys, values = (self.biased(f"{name}_{part}", il, x) for part, x in (("q", q), ("k", kv), ("v", kv)))
        queries = ops.permute(ops.reshape(queries, d, n_head, n_q), 0, 2, 1, 3)
        keys = ops.permute(ops.reshape(keys, d, n_head, n_kv), 0, 2, 1, 3)
        values = ops.cont(ops.permute(ops.reshape(values, d, n_head, n_kv), 1, 2, 0, 3))
        weights = ops.soft_max(ops.mul_mat(keys, queries), None, 1 / sqrtf(d))
        out = ops.cont(ops.permute(ops.mul_mat(values, weights), 0, 2, 1, 3), width, n_q)
        return self.biased(f"{name}_o", il, out)

    def biased(self, name: str, il: int | None, x: Tensor) -> Tensor:
        """A product and its bias, which is always there."""
        return ops.add(ops.mul_mat(self.b.weight(f"{name}.weight", il), x), self.b.weight(f"{name}.bias", il))

    def ffn(self, x: Tensor, il: int) -> Tensor:
        """Normed, widened, and narrowed behind a GELU."""
        x = self.biased("ffn_up", il, self.b.layer_norm(x, "ffn_norm", il))
        return self.biased("ffn_down", il, ops.unary(x, "gelu_erf"))

    def fields(self, question: Tensor, options: Tensor, last: Tensor) -> Tensor:
        """A vector for each question (H, n): its text, a summary of its options, the prompt's end and its kind."""
        b = self.b
        fields = self.project("question", question)
        weights = ops.scale(ops.mul_mat(options, fields), 1 / sqrtf(options.ne[0]))
        weights = ops.soft_max(ops.add(weights, self.mask))
        summary = ops.mul_mat(ops.cont(ops.transpose(options)), weights)
        fields = ops.add(fields, b.layer_norm(summary, "decision.option_summary_norm"))
        fields = ops.add(fields, self.project("global", last))
        return ops.add(fields, ops.get_rows(b.weight("token_types.weight"), self.types))

    def joint(self, options: Tensor, field: Tensor) -> Tensor:
        """How each option (H, n) goes with its question's vector: (1, n)."""
        cosine = ops.sum_rows(ops.mul(ops.l2_norm(field, EPS), ops.l2_norm(options, EPS)))
        both = ops.concat(ops.concat(field, options, 0), ops.mul(field, options), 0)
        both = ops.concat(both, ops.unary(ops.sub(field, options), "abs"), 0)
        hidden = ops.unary(self.biased("decision.scorer", None, both), "gelu_erf")
        rest = self.biased("decision.scorer_out", None, hidden)
        return ops.add(ops.mul(cosine, self.scale(1)), rest)
