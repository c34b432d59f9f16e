"""Which contexts does llama.cpp die of? Empty, or the reason: functions for rows of `table.py`.

It checks what it was asked for, but not whether an architecture's graph can be built like that: then an assertion of
ggml's ends the process.
"""

from ggufphys.params import ContextParams


def never(context: ContextParams) -> str:
    """None that it does not refuse."""
    return ""


def stores_values_as_matrix(context: ContextParams) -> str:
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


def bias_of_one_stream(context: ContextParams) -> str:
    """The bias of relative positions has the whole batch's shape, the scores that of one sequence.

    Source: llama.cpp 0c1e570 src/llama-graph.cpp, build_inp_pos_bucket_dec, build_attn_mha; ggml/src/ggml.c, ggml_add.
    """
    if context.n_stream == 1:
        return ""
    return (
        f"llama.cpp aborts: it cannot bias the scores of {context.n_seq_max} sequences that are kept apart "
        "(expected kv_unified, or n_seq_max 1)"
    )


def prompt_of_one_stream(context: ContextParams) -> str:
    """A prompt of one sequence is reserved for over all streams of the cache, which must divide its tokens.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, sched_reserve (TAG_RESERVE_DIAG_DECAY); src/llama-graph.cpp,
    build_attn_mha; ggml/src/ggml.c, ggml_add.
    """
    n_tokens = min(context.n_ctx, context.n_ubatch)
    if n_tokens % context.n_stream == 0:
        return ""
    return (
        f"llama.cpp aborts: n_ubatch is {n_tokens}, for this architecture expected a multiple of the "
        f"{context.n_stream} sequences that are kept apart (or kv_unified)"
    )
