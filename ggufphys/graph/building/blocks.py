"""The pieces that model files are composed of, node for node as llama.cpp's builder makes them.

Legend: E n_embd, D head size, H n_head, K n_head_kv, T tokens in the batch, C cells of the cache, S streams.
Shapes in comments are ggml's order, innermost first.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_context.
"""

from collections.abc import Mapping
from typing import Final

from ggufphys.arch.caches import row_bytes
from ggufphys.frozen import replace
from ggufphys.graph import ops
from ggufphys.graph.building.construction import Construction
from ggufphys.graph.building.embedding import slice_of, token_embeddings
from ggufphys.graph.ir import Graph, Tensor
from ggufphys.graph.ops import F32, I32, Glu, Unary
from ggufphys.graph.rope import Rope

ACTIVATIONS: Final[Mapping[Glu, Unary]] = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}  # without a gate


class Builder(Construction):
    """Inputs, norms, projections, feed-forward layers and the end, from the weights by their names."""

    # -- inputs

    def inp_embd(self, scale: float = 0.0, *, token_scale: float = 0.0, mixed: bool = True) -> Tensor:
        """Token embeddings (E, T), looked up, times `scale` if that is not 0.

        `token_scale` is for what tokens alone are multiplied with, not ready-made embeddings. `mixed` is False for
        models whose batches hold either tokens or embeddings in every build.
        """
        return token_embeddings(self, scale, token_scale=token_scale, mixed=mixed)[0]

    def inp_embd_deep(self) -> tuple[Tensor, Tensor]:
        """Token embeddings (E, T), and the input as it was, behind which the slices lie that `deepstack` layers add.

        Tokens have none of these slices: zeros.
        """
        return token_embeddings(self)

    def add_deepstack(self, x: Tensor, inp: Tensor, il: int) -> Tensor:
        """X plus the slice of the input that layer `il` adds, if it adds one."""
        i = self.h.deepstack[il] if self.h.deepstack else -1
        return x if i < 0 else ops.add(x, slice_of(inp, self.h.n_embd, i))

    def inp_pos(self, n_pos_per_embd: int = 1) -> Tensor:
        """Positions (T,), or as many for each token (mrope has four, one list behind the other)."""
        return ops.new_input(I32, self.batch.n_tokens * n_pos_per_embd, name="pos")

    def inp_attn_scale(self, floor: int, scale: float, offset: float = 0.0) -> Tensor:
        """A factor on each query (1, 1, T): 1 + scale * log(1 + (position + offset) / floor), steps of `floor`.

        Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_input_attn_temp::set_input.
        """
        return ops.new_input(F32, 1, 1, self.batch.n_tokens, name="attn_scale", params=(scale, floor, offset))

    def inp_out_ids(self) -> Tensor:
        """Which tokens' logits are wanted."""
        return ops.new_input(I32, self.batch.n_outputs, name="out_ids")

    # -- norms and rotations

    def norm_rms(self, x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """RMS norm, its gain and bias."""
        return _with_gain(ops.rms_norm(x, self.norm_rms_eps), weight, bias)

    def norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """Layer norm, its gain and bias."""
        return _with_gain(ops.norm(x, self.norm_eps), weight, bias)

    def rms(self, x: Tensor, name: str, il: int | None = None) -> Tensor:
        """RMS norm with the gain `{name}.weight` and the bias beside it, as far as the file has them."""
        return self.norm_rms(x, self.weight_or_none(f"{name}.weight", il), self.weight_or_none(f"{name}.bias", il))

    def rms_if_gained(self, x: Tensor, name: str, il: int) -> Tensor:
        """RMS norm with the gain `{name}.weight` where the file has it, else X as it is."""
        gain = self.weight_or_none(f"{name}.weight", il)
        return x if gain is None else self.norm_rms(x, gain)

    def layer_norm(self, x: Tensor, name: str, il: int | None = None) -> Tensor:
        """Layer norm with the gain `{name}.weight` and the bias beside it, as far as the file has them."""
        return self.norm(x, self.weight_or_none(f"{name}.weight", il), self.weight_or_none(f"{name}.bias", il))

    def rope(self, x: Tensor, pos: Tensor, factors: Tensor | None, settings: Rope) -> Tensor:
        """Rotary positions; where heads begin with elements that are not turned, those are left as they are."""
        if settings.offset and "rope_by_parts" in self.context.rules:
            still = ops.strided(x, (settings.offset, *x.ne[1:3]), x.nb[1:3])
            turned = ops.strided(x, (x.ne[0] - settings.offset, *x.ne[1:3]), x.nb[1:3], settings.offset * x.nb[0])
            return ops.concat(still, ops.rope(turned, pos, factors, replace(settings, offset=0)), 0)
        return ops.rope(x, pos, factors, settings)

    def rope_factors(self, il: int) -> Tensor | None:
        """Frequency factors: the model's, or those for contexts as long as in training, or longer.

        Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model::get_rope_factors.
        """
        factors = self.weight_or_none("rope_freqs.weight")
        if factors is not None:
            return factors
        n_ctx_orig = self.keys.integer("rope.scaling.original_context_length", self.h.n_ctx_train)
        long = self.context.n_ctx_seq > n_ctx_orig
        return self.weight_or_none(f"rope_factors_{'long' if long else 'short'}.weight")

    # -- queries, keys and values

    def heads(self, x: Tensor, n_embd_head: int, n_head: int) -> Tensor:
        """(D*H, T) seen as (D, H, T)."""
        return ops.reshape(x, n_embd_head, n_head, self.batch.n_tokens)

    def qkv_flat(self, x: Tensor, il: int, n_embd_head_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as dense rows (D*H, T) and (D*K, T), for models that work on whole rows first.

        `n_embd_head_q` is the size of a query's head where it holds more than the query.
        """
        h, n_tokens = self.h, self.batch.n_tokens
        if self.weight_or_none("attn_qkv.weight", il) is None:
            return self.linear("attn_q", il, x), self.linear("attn_k", il, x), self.linear("attn_v", il, x)
        x = self._fused_qkv(x, il)
        parts, offset = [], 0
        for width in (
            (n_embd_head_q or h.n_embd_head_k) * h.n_head[il],
            h.n_embd_head_k * h.n_head_kv[il],
            h.n_embd_head_v * h.n_head_kv[il],
        ):
            strides = (x.nb[0], x.nb[1], x.nb[1] * n_tokens, x.nb[1] * n_tokens)
            parts.append(ops.cont(ops.view(x, (width, n_tokens), strides, row_bytes(x.type, offset))))
            offset += width
        return parts[0], parts[1], parts[2]

    def qkv(
        self,
        x: Tensor,
        il: int,
        n_embd_head_k: int | None = None,
        n_embd_head_v: int | None = None,
        *,
        clamp: float = 0.0,
        biased: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (D, H, T), keys and values (D, K, T): slices of one product, or three products.

        Elements are kept between -clamp and clamp unless that is 0.

        Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_context::build_qkv.
        """
        h, n_tokens = self.h, self.batch.n_tokens
        d_k = h.n_embd_head_k if n_embd_head_k is None else n_embd_head_k
        d_v = h.n_embd_head_v if n_embd_head_v is None else n_embd_head_v
        sizes = ((d_k, h.n_head[il]), (d_k, h.n_head_kv[il]), (d_v, h.n_head_kv[il]))
        parts = []
        if self.weight_or_none("attn_qkv.weight", il) is not None:
            x = self._fused_qkv(x, il) if biased else self.linear("attn_qkv", il, x, biased=False)
            if clamp > 0:
                x = ops.clamp(x, -clamp, clamp)
            offset = 0
            for d, n in sizes:
                strides = (x.nb[0], row_bytes(x.type, d), x.nb[1], x.nb[1] * n_tokens)
                parts.append(ops.view(x, (d, n, n_tokens), strides, row_bytes(x.type, offset)))
                offset += d * n
        else:
            for name, (d, n) in zip(("attn_q", "attn_k", "attn_v"), sizes, strict=True):
                part = self.linear(name, il, x, biased=biased)
                if clamp > 0:
                    part = ops.clamp(part, -clamp, clamp)
                parts.append(self.heads(part, d, n))
        return parts[0], parts[1], parts[2]

    def _fused_qkv(self, x: Tensor, il: int) -> Tensor:
        product = self.linear("attn_qkv", il, x)
        biases = [self.weight_or_none(f"attn_{part}.bias", il) for part in "qkv"]
        if self.weight_or_none("attn_qkv.bias", il) is not None or None in biases:
            return product
        q, k, v = (bias for bias in biases if bias is not None)
        return ops.add(product, ops.concat(ops.concat(q, k, 0), v, 0))

    # -- feed-forward layers

    def ffn_gated(
        self, x: Tensor, il: int, kind: Glu = "swiglu", suffix: str = "", *, biased: bool = True, limit: float = 0.0
    ) -> Tensor:
        """down(act(gate(x)) * up(x)), gate and up side by side; `suffix` as in ffn_up_shexp.

        With a `limit` it is swiglu, whose operands are kept within. Where loaders let a matrix be missing, its step is
        left out.
        """

        def there(part: str, y: Tensor) -> Tensor | None:
            name = f"ffn_{part}{suffix}"
            has_weight = self.weight_or_none(f"{name}.weight", il) is not None
            return self.linear_ffn(name, il, y, biased=biased) if has_weight else None

        up, gate = there("up", x) or x, there("gate", x)
        if gate is None:
            inner = ops.unary(up, ACTIVATIONS[kind])
        else:
            inner = ops.swiglu(gate, up, limit) if limit else ops.glu(gate, up, kind)
        return there("down", inner) or inner

    def ffn_halves(self, x: Tensor, il: int, kind: Glu = "swiglu") -> Tensor:
        """down(act(gate(x)) * up(x)) where one matrix gives gate and up, one behind the other."""
        return self.linear_ffn("ffn_down", il, ops.glu_halves(self.linear_ffn("ffn_up", il, x), kind))

    def ffn_plain(self, x: Tensor, il: int, kind: Unary | None, suffix: str = "") -> Tensor:
        """down(act(up(x))); None is relu(x)^2."""
        x = self.linear_ffn(f"ffn_up{suffix}", il, x)
        x = ops.sqr(ops.unary(x, "relu")) if kind is None else ops.unary(x, kind)
        return self.linear_ffn(f"ffn_down{suffix}", il, x)

    # -- the end

    def wanted(self, out_ids: Tensor, il: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Of the last layer on, only the tokens whose logits are wanted."""
        return tuple(ops.get_rows(x, out_ids) for x in tensors) if self.is_last(il) else tensors

    def wanted_early(self, out_ids: Tensor, il: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """As `wanted`, in builds where models that drafts start from compute all tokens only if there is a draft."""
        return self.wanted(out_ids, il, *tensors) if "wanted_before_drafts" in self.context.rules else tensors

    def wanted_late(self, x: Tensor, out_ids: Tensor) -> Tensor:
        """The wanted ones behind what drafts start from, which is an output, unless `wanted_early` chose them."""
        x.is_output = True
        return x if "wanted_before_drafts" in self.context.rules else ops.get_rows(x, out_ids)

    def hidden(self, x: Tensor) -> Graph:
        """The hidden states as they are, of models without logits."""
        x.is_output = True
        self.embd = x
        self.graph.expand(x)
        return self.graph

    def head(
        self, x: Tensor, *, scale: float = 0.0, softcap: float = 0.0, scale_before: float = 0.0, biased: bool = True
    ) -> Graph:
        """From the normed hidden states to `logits`, the end."""
        return self.embeddings(self.logits(x, scale=scale, softcap=softcap, scale_before=scale_before, biased=biased))

    def logits(
        self, x: Tensor, *, scale: float = 0.0, softcap: float = 0.0, scale_before: float = 0.0, biased: bool = True
    ) -> Tensor:
        """From the normed hidden states to logits (n_vocab, n_outputs), with or without a matrix of its own.

        Both are outputs, if no more is done to the logits. `scale` multiplies them, `scale_before` what the matrix is
        multiplied with, `softcap` keeps them within it, unless 0.
        """
        x.is_output = True
        self.embd = x
        if scale_before:
            x = ops.scale(x, scale_before)
        matrix = self.weight_or_none("output.weight") or self.weight("token_embd.weight")
        logits = self.mul_mat(matrix, x, self.scale_of("output", None))
        bias = self.weight_or_none("output.bias") if biased else None
        if bias is not None:
            logits = ops.add(logits, bias)
        if scale:
            logits = ops.scale(logits, scale)
        if softcap:
            logits = ops.scale(ops.unary(ops.scale(logits, 1 / softcap), "tanh"), softcap)
        return logits

    def embeddings(self, x: Tensor) -> Graph:
        """The end of an encoder, and of every graph: the tensor is an output, with the one whose bytes it shows.

        Where hidden states are pooled, newer builds compute no logits of them.
        """
        if self.embd is not None and self.context.pooling != "none" and "pooled_without_logits" in self.context.rules:
            x = self.embd
        (x.view_src or x).is_output = x.is_output = True
        self.embd = self.embd or x
        self.graph.expand(x)
        return self.graph


def _with_gain(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x = ops.mul(x, weight)
    return x if bias is None else ops.add(x, bias)
