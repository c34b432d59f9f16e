"""Which prompts and batches fit into a context, and which batches are they?

As llama.cpp computes them, not as it reserves memory for them.
"""

from ggufphys.context import ContextParams, pad_ctx
from ggufphys.frozen import replace
from ggufphys.graph.batch import Batch, StateRows

_GOES_ON = StateRows(zero=None)


def prompt_length(context: ContextParams, prefill: int, depth: int) -> int:
    """The prompt that is asked about: 0 for 512 tokens, or as many as fit behind `depth`."""
    return prefill or min(512, max(context.n_ctx_seq - depth, 1))


def check_lengths(context: ContextParams, prefill: int, depth: int, batch: int) -> None:
    """Refuse what does not fit into the context.

    Raises:
        ValueError: naming what to raise.
    """
    if prefill < 1 or depth < 0 or batch < 1:
        raise ValueError(f"{prefill} tokens at depth {depth} and a batch of {batch}: expected at least 1, 0 and 1")
    if batch > context.n_seq_max:
        raise ValueError(
            f"a batch of {batch} sequences, but n_seq_max is {context.n_seq_max}: ask for --parallel {batch}"
        )
    n_sharing = batch if context.kv_unified else 1
    if (depth + 1) * n_sharing > max(context.n_ctx_seq, depth + prefill):
        raise ValueError(
            f"{(depth + 1) * n_sharing} tokens ({n_sharing} sequences of {depth + 1}) do not fit into the "
            f"{context.n_ctx_seq} cells that they share: raise --ctx-size"
        )
    if depth + prefill > context.n_ctx_seq:
        raise ValueError(
            f"{depth + prefill} tokens (a prompt of {prefill} at depth {depth}) do not fit into the "
            f"{context.n_ctx_seq} cells of a sequence: raise --ctx-size"
        )


def with_sequences(context: ContextParams, n_seqs: int) -> ContextParams:
    """The context as a batch of so many sequences sees it: streams of the others are not touched."""
    n_ctx = context.n_ctx if context.kv_unified else context.n_ctx_seq * n_seqs
    return replace(context, n_seq_max=n_seqs, n_ctx=n_ctx)


def decode_batch(context: ContextParams, n_seqs: int, depth: int) -> Batch:
    """One token for each of `n_seqs` sequences behind `depth` earlier ones; a first one was read as a prompt."""
    n_kv = pad_ctx((depth + 1) * (n_seqs if context.kv_unified else 1))
    return Batch(n_tokens=n_seqs, n_seqs=n_seqs, n_outputs=n_seqs, n_kv=n_kv, states=_GOES_ON)


def prompt_batch(n_tokens: int, start: int, n_outputs: int = 0) -> Batch:
    """Tokens of one prompt from a position on; a recurrent state is cleared for the first of them and never again."""
    states = StateRows() if start == 0 else _GOES_ON
    return Batch(n_tokens=n_tokens, n_seqs=1, n_outputs=n_outputs, n_kv=pad_ctx(start + n_tokens), states=states)
