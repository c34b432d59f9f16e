"""What draft models put behind their logits: places among the target's tokens, and who follows whom in a block.

A draft gives several tokens at once, a *block* for each sequence, that begins with an anchor, the last token that is
settled. Heads behind the logits let each of a block's tokens depend on the one before.

Legend: V the target's vocabulary, D the draft's, E n_embd, T tokens, N blocks, L tokens of a block, K candidates, R the
rank of a table of pairs. Source: llama.cpp 0c1e570 src/models/dflash.cpp, build_dspark_markov_head,
build_dflash2_selector; src/models/eagle3.cpp.
"""

from math import inf

from ggufphys.graph import ops
from ggufphys.graph.building import dsa
from ggufphys.graph.building.blocks import Builder
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32, I32


def spread(b: Builder, logits: Tensor, elsewhere: float = -inf) -> Tensor:
    """Logits (D, T) at their tokens' places among all (V, T), the others set to `elsewhere`."""
    places = b.weight_or_none("d2t")
    if places is None:
        return logits
    n_draft, n_outputs = logits.ne[:2]
    full = ops.elementwise("FILL", Tensor("NONE", F32, (1, b.h.n_vocab, n_outputs)), params=(elsewhere,))
    rows = ops.reshape(logits, 1, n_draft, n_outputs)
    return ops.reshape(ops.set_rows(full, rows, ops.reshape(places, n_draft, 1, 1)), b.h.n_vocab, n_outputs)


def biased_by_pairs(b: Builder, logits: Tensor, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (V, T) biased by the likeliest token before each, and how sure the draft is of each (E, T), if it says.

    Blocks longer than in training are left as they are.
    """
    n_blocks = b.batch.n_seqs
    length = logits.ne[1] // n_blocks
    if length > b.keys.integer("block_size"):
        return logits, None
    tells = b.weight_or_none("conf_proj.weight") is not None
    before = ops.cont(ops.strided(tokens, (1, n_blocks), (length * tokens.nb[0],)), n_blocks)
    chosen: list[Tensor] = []
    sure: list[Tensor] = []
    first = 0 if b.keys.flag("sample_from_anchor", True) else 1
    if first:  # the anchor's place predicts nothing
        chosen = [ops.cont(_of_each_block(logits, 0, n_blocks))]
        sure = [ops.unary(ops.cont(_of_each_block(logits, 0, n_blocks, width=1)), "sigmoid")]
    for i in range(first, length):
        pair = ops.get_rows(b.weight("markov_w1.weight"), before)  # (R, N)
        bias = spread(b, b.linear("markov_w2", None, pair), 0.0)
        column = ops.add(_of_each_block(logits, i, n_blocks), bias)
        chosen = [ops.concat(chosen[0], column, 1) if chosen else column]
        if tells:
            feature = ops.concat(ops.cont(_of_each_block(hidden, i, n_blocks)), pair, 0)
            now = ops.unary(b.linear("conf_proj", None, feature), "sigmoid")
            sure = [ops.concat(sure[0], now, 1) if sure else now]
        if i + 1 < length:
            before = Tensor("ARGMAX", I32, (column.ne[1],), (column,))
    out = _by_block(chosen[0], n_blocks)
    return out, ops.repeat(_by_block(sure[0], n_blocks), *hidden.ne) if tells else None


def _of_each_block(x: Tensor, i: int, n_blocks: int, width: int = 0) -> Tensor:
    """Column `i` of each block of X (n, T): (n, N), or its first elements alone."""
    length = x.ne[1] // n_blocks
    return ops.strided(x, (width or x.ne[0], n_blocks), (length * x.nb[1],), i * x.nb[1])


def _by_block(x: Tensor, n_blocks: int) -> Tensor:
    """Columns that go from place to place (n, N*L) in the batch's order, block after block."""
    by_place = ops.reshape(x, x.ne[0], n_blocks, x.ne[1] // n_blocks)
    return ops.reshape(ops.cont(ops.permute(by_place, 0, 2, 1, 3)), x.ne[0], x.ne[1])


def candidates(b: Builder, logits: Tensor, hidden: Tensor, tokens: Tensor) -> Tensor:
    """For each place its best K tokens, and scores of each behind each of the place before: (E, L*N), rows padded.

    A walk through them outside of the graph chooses the block's tokens.
    """
    n_embd, n_tokens, n_blocks = b.h.n_embd, b.batch.n_tokens, b.batch.n_seqs
    k, rank = b.keys.integer("selector_top_k"), b.keys.integer("selector_rank")
    per_block = n_tokens // n_blocks
    length = min(per_block, b.keys.integer("block_size"))
    best = dsa.top_k(logits, k)
    values = ops.get_rows(ops.reshape(logits, 1, logits.ne[0], n_tokens), best)
    gate = b.mul_mat(b.weight("selector_hidden.weight"), hidden)
    best = ops.reshape(best, k, per_block, n_blocks)
    values = ops.reshape(ops.reshape(values, k, n_tokens), k, per_block, n_blocks)
    gate = ops.reshape(gate, rank, per_block, n_blocks)

    def scored(first: int, n: int, before: Tensor) -> Tensor:
        """Rows of `n` places from `first` on; `before` are the tokens that may stand before them."""

        def run(x: Tensor) -> Tensor:
            return ops.cont(ops.strided(x, (x.ne[0], n, n_blocks), (x.nb[1], x.nb[2]), first * x.nb[1]))

        here, its_values, its_gate = run(best), run(values), run(gate)
        n_before = before.ne[0] // (n * n_blocks)
        after = ops.get_rows(b.weight("selector_successor.weight"), ops.reshape(here, k * n * n_blocks))
        after = ops.reshape(after, rank, k, n, n_blocks)
        ahead = ops.get_rows(b.weight("selector_predecessor.weight"), before)
        ahead = ops.reshape(ahead, rank, n_before, n, n_blocks)
        ahead = ops.mul(ahead, ops.repeat(ops.reshape(its_gate, rank, 1, n, n_blocks), *ahead.ne))
        score = ops.mul_mat(after, ahead)
        if n_before == 1:
            score = ops.repeat(score, k, k, n, n_blocks)
        score = ops.add(score, ops.repeat(ops.reshape(its_values, k, 1, n, n_blocks), *score.ne))
        row = ops.concat(ops.cast(here, F32), ops.reshape(score, k * k, n, n_blocks), 0)
        return ops.pad(row, n_embd, n, n_blocks)

    packed = ops.elementwise("FILL", Tensor("NONE", F32, (n_embd, 1, n_blocks)), params=(0.0,))
    if length > 1:  # behind the anchor, which is one token
        anchors = ops.cont(ops.strided(tokens, (1, n_blocks), (per_block * tokens.nb[0],)), n_blocks)
        packed = ops.concat(packed, scored(1, 1, anchors), 1)
    if length > 2:
        before = ops.cont(ops.strided(best, (k, length - 2, n_blocks), (best.nb[1], best.nb[2]), best.nb[1]))
        before = ops.reshape(before, k * (length - 2) * n_blocks)
        packed = ops.concat(packed, scored(2, length - 2, before), 1)
    return ops.reshape(packed, n_embd, length * n_blocks)
