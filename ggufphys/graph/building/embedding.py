"""What does a graph begin with? The embeddings of a batch's tokens, and the ways that other batches would take instead.

llama.cpp puts all ways in one graph, so that it need not be built anew for another kind of batch: each of them is laid
out, and one is computed.

Legend: E n_embd, W the width of the input (with deepstack several E), T tokens.

Source: llama.cpp 0c1e570 src/llama-graph.cpp, llm_graph_context::build_inp_embd; 11401 the same, with mixed batches.
"""

from ggufphys.arch.loading import OUTPUT_IS_EMBEDDING
from ggufphys.graph import ops
from ggufphys.graph.building.construction import Construction, weight_of
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32, I32, I64


def token_embeddings(
    b: Construction, scale: float = 0.0, *, token_scale: float = 0.0, mixed: bool = True
) -> tuple[Tensor, Tensor]:
    """Embeddings (E, T), scaled, and the input as it was, of which they are the first slice.

    `scale` multiplies all of them unless 0, `token_scale` those of tokens; `mixed` says whether the architecture knows
    batches of both.
    """
    graph, rules = b.graph, b.context.rules
    n_embd, n_tokens = b.h.n_embd, b.batch.n_tokens
    n_slices = 1 + len({i for i in b.h.deepstack if i >= 0})
    ready_made = ops.new_input(F32, n_embd * n_slices, n_tokens, name="embd")
    mixes = "mixed_batches" in rules and mixed and b.context.ctx_type == "default"
    of_mixed = ops.new_input(I32, n_tokens, name="mixed_tokens")
    table = b.weight(_table_name(b))
    rows, mixed_rows = ops.get_rows(table, b.tokens), ops.get_rows(table, of_mixed)
    if "rows_first" in rules:
        graph.expand(rows)
        if mixes:
            graph.expand_idle(mixed_rows)
    x = graph.expand(_as_wide(_adapted(b, rows, b.tokens), ready_made))
    graph.expand(ready_made)
    if mixes:
        # The way of a batch of both: tokens' rows are written into a copy of the ready-made ones.
        slots = ops.new_input(I64, n_tokens, name="mixed_slots")
        embeddings = ops.new_input(F32, *ready_made.ne[:2], name="mixed_embd")
        mixed_rows = _as_wide(_adapted(b, mixed_rows, of_mixed), ready_made)
        graph.expand_idle(ops.set_rows(ops.dup(embeddings), mixed_rows, slots))
    if n_slices > 1:
        x = graph.expand(slice_of(x, n_embd, 0))
        scale, token_scale = 0.0, scale
    first = x
    if scale:
        x = ops.scale(x, scale)
    if token_scale and "mixed_batches" in rules:
        x = ops.cont(x) if n_slices > 1 else x
        x = ops.mul(x, ops.new_input(F32, 1, n_tokens, name="row_scale"))
    elif token_scale and n_slices > 1:
        x = ops.scale(ops.cont(x), token_scale)
    elif token_scale:
        return ops.scale(x, token_scale), first  # by the model's own builder, and computed where it is first used
    return graph.expand(x), first


def _table_name(b: Construction) -> str:
    name = "token_embd.weight"
    return "output.weight" if b.h.arch in OUTPUT_IS_EMBEDDING and name not in b.tensors else name


def _adapted(b: Construction, rows: Tensor, tokens: Tensor) -> Tensor:
    """The rows of these tokens, with what adapters of the embeddings add."""
    for low, high in b.adapters.get("token_embd.weight", ()):
        delta = ops.mul_mat(weight_of(high), ops.get_rows(weight_of(low), tokens))
        rows = ops.add(rows, ops.scale(delta, 1.0))
    return rows


def _as_wide(x: Tensor, like: Tensor) -> Tensor:
    return ops.pad(x, *like.ne[:2]) if like.ne[0] > x.ne[0] else x


def slice_of(x: Tensor, n_embd: int, i: int) -> Tensor:
    """The slice (E, T) of an input (W, T)."""
    n_tokens = x.ne[1]
    strides = (x.nb[0], x.nb[1], x.nb[1] * n_tokens, x.nb[1] * n_tokens)
    return ops.view(x, (n_embd, n_tokens), strides, i * n_embd * x.nb[0])
