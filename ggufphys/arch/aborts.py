"""Which contexts does llama.cpp die of? Empty, or the reason: functions for rows of `table.py`.

It checks what it was asked for, but not whether an architecture's graph can be built like that: then an assertion of
ggml's ends the process.
"""

from collections.abc import Callable
from typing import TypeAlias

from ggufphys.arch.contexts import with_indexer
from ggufphys.arch.rules import LayerFlags, flags_from_file
from ggufphys.context import ContextParams
from ggufphys.hparams.hparams import HParams

Aborts: TypeAlias = Callable[[ContextParams, HParams], str]
AbortsLater: TypeAlias = Callable[[HParams], str]
"""The same of the first batch: such a context is created."""


def never(context: ContextParams, h: HParams) -> str:
    """None that it does not refuse."""
    return ""


def later_never(h: HParams) -> str:
    """No reason: llama.cpp runs what it has loaded."""
    return ""


def fills_both_masks(*, windowed: bool) -> AbortsLater:
    """A mask for layers with a window is filled and one for those without, used or not; `windowed`: whatever n_swa is.

    Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_input_attn_no_cache::set_input (GGML_ASSERT of buffers).
    """

    def aborts(h: HParams) -> str:
        flags = set(h.swa_pattern[: h.n_layer]) if isinstance(h.swa_pattern, tuple) else set()
        if len(flags) != 1 or not (windowed or h.n_swa):
            return ""
        return _one_kind(h.n_layer, has_window=True in flags)

    return aborts


def _one_kind(n_layer: int, *, has_window: bool) -> str:
    kind = "a window" if has_window else "no window"
    return f"llama.cpp aborts at the first batch: all {n_layer} layers have {kind} (expected both kinds)"


def fills_both_caches(h: HParams) -> str:
    """A cache for layers with a window is filled and one for those without, used or not. What rotates indexers' keys is
    there if all count as equally long; in layers with a window they count as long as its heads.

    Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_input_attn_k_dsa_iswa::set_input;
    src/llama-kv-cache-dsa.cpp (hparams_lid: n_embd_head_k_full alone is the indexer's); src/llama-kv-cache.cpp,
    set_input_k_idxs, set_input_k_rot (GGML_ASSERT of buffers and of attn_rot_hadamard).
    """
    flags = flags_from_file(h)[: h.n_layer]
    if len(set(flags)) == 1:
        return _one_kind(h.n_layer, has_window=flags[0])
    mixed = [il for il, (window, has_indexer) in enumerate(zip(flags, with_indexer(h), strict=False))
             if window and has_indexer]  # fmt: skip
    if not mixed or h.n_embd_head_k_swa == h.indexer_head_size:
        return ""
    return (
        f"llama.cpp aborts at the first batch: layer {mixed[0]} has a window of heads of {h.n_embd_head_k_swa} and an "
        f"indexer of {h.indexer_head_size} (expected indexers in layers without a window alone)"
    )


def scales_by_no_length(h: HParams) -> str:
    """Factors of queries that grow with positions, by steps of a length that the file does not give.

    Source: llama.cpp 0c1e570 src/models/deepseek2.cpp, graph; src/llama-graph.cpp,
    llm_graph_input_attn_temp::set_input (GGML_ASSERT of both).
    """
    if not h.attn_temp_scale or h.attn_temp_length:
        return ""
    return (
        f"llama.cpp aborts at the first batch: {h.arch}.attention.temperature_scale is {h.attn_temp_scale:g}, and "
        "there is no attention.temperature_length (expected both, or neither)"
    )


def scales_without_windows(h: HParams) -> str:
    """The same factors, which are set where there are windows and are filled in anyway.

    Source: llama.cpp 0c1e570 src/models/llama4.cpp, load_arch_hparams, graph; src/llama-graph.cpp,
    llm_graph_input_attn_temp::set_input (GGML_ASSERT of both).
    """
    if h.n_swa != 0:
        return ""
    return (
        "llama.cpp aborts at the first batch: without windows (attention.sliding_window 0) it has no factors for "
        "llama4's queries (expected windows)"
    )


def reads_wider_rows(h: HParams) -> str:
    """Embeddings are read in the width of several streams, of which the graph has made one.

    Source: llama.cpp 0c1e570 src/models/deepseek4.cpp, qwen4exp.cpp (n_embd_out_impl, t_embd); src/llama-context.cpp,
    decode (extract embeddings); ggml/src/ggml-backend.cpp, ggml_backend_tensor_get_async.
    """
    if h.hc_mult <= 1:
        return ""
    wide = h.hc_mult * h.n_embd
    return f"llama.cpp aborts: it reads embeddings of {wide:,} numbers, and the graph makes {h.n_embd:,}"


def stores_values_as_matrix(context: ContextParams, h: HParams) -> str:
    """V reaches the cache as if all its tokens were heads of one, which only fits where elements are stored one by one.

    Source: llama.cpp 0c1e570 src/models/plm.cpp, v_states; src/llama-kv-cache.cpp, cpy_v; ggml/src/ggml.c,
    ggml_set_rows.
    """
    if not context.flash_attn or max(context.n_ubatch, context.n_seq_max) == 1:
        return ""
    return (
        "llama.cpp aborts: it cannot store this architecture's V for more than one token with flash attention "
        "(expected flash_attn off, or n_ubatch 1)"
    )


def bias_of_one_stream(context: ContextParams, h: HParams) -> str:
    """The bias of relative positions has the whole batch's shape, the scores that of one sequence.

    Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_inp_pos_bucket_dec, build_attn_mha; ggml/src/ggml.c, ggml_add.
    """
    if context.n_stream == 1:
        return ""
    return (
        f"llama.cpp aborts: it cannot bias the scores of {context.n_seq_max} sequences that are kept apart "
        "(expected kv_unified, or n_seq_max 1)"
    )


def embeds_nothing(context: ContextParams, h: HParams) -> str:
    """A draft's graph names no hidden states, which a context for embeddings pools.

    Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_pooling (t_embd); src/models/eagle3.cpp, gemma4-assistant.cpp.
    """
    if not context.embeddings:
        return ""
    return f"llama.cpp aborts: {h.arch} has no embeddings to give (expected embeddings off)"


def prompt_of_one_stream(recurrent: LayerFlags) -> Aborts:
    """A prompt of one sequence is reserved for over all streams of the cache, which must divide its tokens.

    Of the last layer the wanted rows alone are added to the stream, which are as many in both; `recurrent` layers do
    not attend.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, sched_reserve (TAG_RESERVE_DIAG_DECAY); src/llama-graph.cpp,
    build_attn_mha; ggml/src/ggml.c, ggml_add.
    """

    def aborts(context: ContextParams, h: HParams) -> str:
        n_tokens = min(context.n_ctx, context.n_ubatch)
        if n_tokens % context.n_stream == 0 or all(recurrent(h)[: h.n_layer - 1]):
            return ""
        return (
            f"llama.cpp aborts: n_ubatch is {n_tokens}, for this architecture expected a multiple of the "
            f"{context.n_stream} sequences that are kept apart (or kv_unified)"
        )

    return aborts


def parts_by_embedding(context: ContextParams, h: HParams) -> str:
    """K and V begin where an embedding's length says, whatever Q's is: those of few tokens may end behind the product.

    Source: llama.cpp 0c1e570 src/models/cogvlm.cpp, graph (Vcur); ggml/src/ggml.c, ggml_new_tensor_impl.
    """
    n_head, n_head_kv, d = h.n_head[0], h.n_head_kv[0], h.n_embd_head_k
    n_tokens = context.n_seq_max
    if 2 * h.n_embd + d * n_head_kv * n_tokens <= 3 * d * n_head * n_tokens:
        return ""
    return (
        f"llama.cpp aborts: V begins at {2 * h.n_embd} of {3 * d * n_head} in the product of {n_tokens} tokens, and "
        f"ends behind it (expected embedding_length {d * n_head}, or more sequences)"
    )


def chooses_by_group(context: ContextParams, h: HParams) -> str:
    """Where blocks are chosen, each group of heads has an indexer head of its own.

    Source: llama.cpp 0c1e570 src/models/minimax-m3.cpp, graph (msa_enabled, HKV == Hd).
    """
    chooses = context.flash_attn and (context.n_seq_max == 1 or not context.kv_unified)
    groups = {h.n_head_kv[il] for il in range(h.n_layer_dense_lead, h.n_layer)}
    if not chooses or groups <= {h.indexer_n_head}:
        return ""
    return (
        f"llama.cpp aborts: attention.indexer.head_count is {h.indexer_n_head}, for flash attention expected "
        f"head_count_kv, {', '.join(map(str, sorted(groups)))} (or flash_attn off)"
    )
