"""Which batches are a prompt and a step of decoding? As llama.cpp computes them, not as it reserves memory for them."""

from ggufphys.graph.batch import Batch, StateRows
from ggufphys.params import ContextParams, pad_ctx

_GOES_ON = StateRows(zero=None)


def decode_batch(context: ContextParams, n_seqs: int, depth: int) -> Batch:
    """One token for each of `n_seqs` sequences behind `depth` earlier ones; a first one was read as a prompt."""
    n_kv = pad_ctx((depth + 1) * (n_seqs if context.kv_unified else 1))
    return Batch(n_tokens=n_seqs, n_seqs=n_seqs, n_outputs=n_seqs, n_kv=n_kv, states=_GOES_ON)


def prompt_batch(n_tokens: int, start: int, n_outputs: int = 0) -> Batch:
    """Tokens of one prompt from a position on; a recurrent state is cleared for the first of them and never again."""
    states = StateRows() if start == 0 else _GOES_ON
    return Batch(n_tokens=n_tokens, n_seqs=1, n_outputs=n_outputs, n_kv=pad_ctx(start + n_tokens), states=states)
