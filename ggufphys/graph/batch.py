"""For which batch is a graph built? llama.cpp reserves its buffers for a worst-case prompt and a worst-case decode."""

from typing import Final

from ggufphys.context import ContextParams
from ggufphys.frozen import dataclass

SMALL_BATCH: Final = 32  # below it norms stay with their layer: llama-context.cpp, graph_get_cb


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRows:
    """Which rows of the recurrent states a batch works on: `n_rows` from `first` on, its sequences' in front.

    None are as many as there are, where llama.cpp reserves, else one for each sequence of the batch. The row `zero` is
    cleared for sequences that begin; None when none does.
    """

    first: int = 0
    n_rows: int | None = None
    zero: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCount:
    """Of blocks of `ratio` positions: how many a batch completes, and how many are whole then, in all sequences."""

    ratio: int
    n_new: int
    n_whole: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`n_tokens` in one physical batch, shared evenly by `n_seqs` sequences; logits for `n_outputs` of them.

    Where an encoder comes first, `n_enc` are the tokens that it has read, None for as many as in training.
    `n_kv` are the cells that attention looks at, None for all in all streams, as llama.cpp reserves; else it looks at
    as many streams as there are sequences, the first of which is `first_stream`. `blocks` are counted for models that
    make one row of several positions; without, the batch is taken to begin where a block does.
    """

    n_tokens: int
    n_seqs: int
    n_outputs: int
    n_kv: int | None = None
    n_enc: int | None = None
    first_stream: int = 0
    states: StateRows = StateRows()
    blocks: tuple[BlockCount, ...] = ()

    def blocks_of(self, ratio: int) -> BlockCount | None:
        """The blocks of so many positions, if they are counted."""
        return next((count for count in self.blocks if count.ratio == ratio), None)


def lone_prompt(context: ContextParams) -> Batch:
    """A full prompt of one sequence, for which llama.cpp reserves last where that may take more.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, sched_reserve (TAG_RESERVE_DIAG_DECAY).
    """
    n_tokens = min(context.n_ctx, context.n_ubatch)
    return Batch(n_tokens=n_tokens, n_seqs=1, n_outputs=min(n_tokens, context.n_outputs_max))


def reserved_batches(context: ContextParams) -> tuple[Batch, ...]:
    """The batches llama.cpp reserves for: a full prompt, and one token for each sequence.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, sched_reserve, graph_reserve (rounds up to whole sequences).
    """
    n_seqs = context.n_seq_max
    n_tokens = min(context.n_ctx, context.n_ubatch)
    n_outputs = min(n_tokens, context.n_outputs_max)
    whole = -(-n_tokens // n_seqs) * n_seqs
    if "outputs_rounded" in context.rules:
        n_outputs = max(n_outputs, whole)
    return (
        Batch(n_tokens=whole, n_seqs=n_seqs, n_outputs=n_outputs),
        Batch(n_tokens=n_seqs, n_seqs=n_seqs, n_outputs=n_seqs),
    )
