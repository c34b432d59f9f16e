"""What single operations cost, by hand."""

from math import prod

from ggufphys.gguf import GGMLType
from ggufphys.graph import ops
from ggufphys.graph.building import dsa, hyper
from ggufphys.graph.describing.cost import node_cost
from ggufphys.graph.ir import Tensor

F16, F32 = GGMLType.F16, GGMLType.F32
N_EMBD, N_STREAMS, N_TOKENS = 64, 4, 5


def x(*ne: int) -> Tensor:
    return Tensor("ADD", F32, ne)


def test_an_indexer() -> None:
    """Each head's product with each key, then their weighted sum; keys and mask are read once, scores written."""
    d, n_head, n_cells = 16, 3, 256
    keys = ops.weight(F16, d, 1, n_cells, params=("k", 0))
    cost = node_cost(
        dsa.lightning_indexer(x(d, n_head, N_TOKENS), keys, x(n_head, N_TOKENS), ops.new_input(F16, n_cells, N_TOKENS))
    )

    assert cost.flops == n_cells * N_TOKENS * n_head * (2 * d + 2)
    assert cost.cache_read_bytes == d * n_cells * 2
    assert cost.activation_read_bytes == 4 * (d + 1) * n_head * N_TOKENS + 2 * n_cells * N_TOKENS
    assert cost.activation_written_bytes == 4 * n_cells * N_TOKENS


def test_hyper_connections() -> None:
    """A layer reads a weighted sum of the streams, and writes to all of them, which mix with each other."""
    streams = x(N_EMBD, N_STREAMS, N_TOKENS)
    read = node_cost(hyper.hc_pre(streams, x(N_STREAMS, N_TOKENS)))
    comb = x(N_STREAMS, N_STREAMS, N_TOKENS)
    written = node_cost(hyper.hc_post(x(N_EMBD, N_TOKENS), streams, x(N_STREAMS, N_TOKENS), comb))

    assert read.flops == 2 * N_STREAMS * N_EMBD * N_TOKENS
    assert written.flops == (2 + 2 * N_STREAMS) * prod(streams.ne)
    assert written.activation_written_bytes == 4 * prod(streams.ne)


def test_filling_reads_nothing() -> None:
    """What is filled with a number is read by nobody."""
    cost = node_cost(ops.elementwise("FILL", x(N_EMBD, N_TOKENS), params=(0.0,)))

    assert (cost.activation_read_bytes, cost.activation_written_bytes) == (0, 4 * N_EMBD * N_TOKENS)
