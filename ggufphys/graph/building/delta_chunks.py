"""A delta net of prompts by parts: what llama.cpp computes where it does not use its fused operation.

Tokens are taken in chunks, filled up with zeros. Within a chunk all tokens are solved for at once, and the state goes
from chunk to chunk.

Legend: D head size, H heads, T tokens of a sequence, N n_seqs, C tokens of a chunk, P chunks.
Source: llama.cpp 0c1e570 src/models/delta-net-base.cpp, build_delta_net_chunking; of b8229, whose state is transposed.
"""

from typing import Final

from ggufphys.graph import ops
from ggufphys.graph.floats import sqrtf
from ggufphys.graph.ir import Tensor

CHUNK: Final = 64
CHUNK_OF_ELEMENTS: Final = 16  # where each element of a head has a gate


def in_chunks(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, beta: Tensor, state: Tensor, *, transposed: bool
) -> tuple[Tensor, Tensor]:
    """Q, K, V (D, H, T, N), `gate` (1 or D, H, T, N), `beta` (1, H, T, N), `state` (D, D, H, N): (D, H, T, N), state.

    With `transposed` the state is turned before the chunks and turned back behind them.
    """
    d, n_head, n_tokens, n_seqs = v.ne
    n_gates, n_all = gate.ne[0], n_head * n_seqs
    size = CHUNK_OF_ELEMENTS if n_gates == d else CHUNK
    n_padded = -(-n_tokens // size) * size
    n_chunks = n_padded // size

    q = ops.scale(q, 1 / sqrtf(d))
    q, k, v, gate, beta = (
        ops.pad(x, x.ne[0], n_padded, n_head, n_seqs)
        for x in [ops.permute(x, 0, 2, 1, 3) for x in (q, k, v, gate, beta)]
    )
    v_beta, k_beta = ops.mul(v, beta), ops.mul(k, beta)
    q, k, k_beta, v, v_beta, gate = (
        ops.reshape(x, x.ne[0], size, n_chunks, n_all) for x in (q, k, k_beta, v, v_beta, gate)
    )
    passed = _along(_turned(gate), "CUMSUM")  # the gates' sums so far (C, 1 or D, P, H*N)

    keys, scores = _products(q, k, k_beta, passed, by_element=n_gates == d)
    scores, below = _along(scores, "TRI"), _along(keys, "TRI")
    ones = ops.elementwise("FILL", ops.view(below, (size,)))
    identity = Tensor("DIAG", ops.F32, (size, size), (ones,))
    left = ops.add(below, identity)
    solved = Tensor("SOLVE_TRI", ops.F32, below.ne, (left, ops.unary(below, "neg")))
    solved = ops.add(solved, identity)

    v = ops.mul_mat(_turned(v_beta), solved)
    decay = ops.unary(passed, "exp")
    k_cumulated = ops.mul_mat(ops.mul(_turned(k_beta), decay), solved)
    q_decayed = ops.mul(q, _turned(decay))
    last = ops.cont(ops.strided(passed, (1, *passed.ne[1:]), passed.nb[1:], passed.nb[0] * (size - 1)))
    decay_of_chunk = ops.transpose(ops.unary(last, "exp"))
    rest = ops.unary(ops.sub(passed, last), "neg")
    k_rest = _turned(ops.mul(k, _turned(ops.unary(rest, "exp"))))
    state = ops.cont(ops.transpose(state), d, d, 1, n_all) if transposed else ops.reshape(state, d, d, 1, n_all)
    v_turned = _turned(v)

    for i in range(n_chunks):
        change = ops.sub(_chunk(v_turned, i), ops.mul_mat(_chunk(k_cumulated, i), state))
        inside = ops.mul_mat(change, _chunk(scores, i))
        out = ops.add(ops.mul_mat(state, _chunk(q_decayed, i)), inside)
        v = Tensor("SET", v.type, v.ne, (v, out), nb=v.nb, view_of=v, params=(i * v.nb[2],))
        added = ops.mul_mat(_chunk(k_rest, i), change)
        state = ops.add(ops.mul(state, _chunk(decay_of_chunk, i)), added)

    row = v.nb[0] * d
    kept = ops.strided(v, (d, n_tokens, n_head, n_seqs), (row, row * n_padded, row * n_padded * n_head))
    state = ops.reshape(state, d, d, n_head, n_seqs)
    return ops.permute(kept, 0, 2, 1, 3), ops.transpose(state) if transposed else state


def _products(q: Tensor, k: Tensor, k_beta: Tensor, passed: Tensor, *, by_element: bool) -> tuple[Tensor, Tensor]:
    """Keys with keys and keys with queries of each chunk, both (C, C, P, H*N), less what is forgotten in between."""
    d, size, n_chunks, n_all = k.ne
    if not by_element:
        later = ops.repeat(ops.reshape(passed, 1, size, n_chunks, n_all), size, size, n_chunks, n_all)
        mask = ops.unary(_along(ops.sub(later, passed), "TRI"), "exp")
        return ops.mul(ops.mul_mat(k, k_beta), mask), ops.mul(ops.mul_mat(k, q), mask)
    n = n_chunks * n_all
    first = ops.reshape(passed, size, 1, d, n)
    later = ops.repeat(ops.reshape(passed, 1, size, d, n), size, size, d, n)
    mask = ops.unary(_along(ops.sub(later, first), "TRI"), "exp")
    mask = ops.cont(ops.permute(mask, 2, 1, 0, 3), d, size, size, n)
    of_keys, of_queries = (ops.mul(mask, ops.reshape(x, d, size, 1, n)) for x in (k_beta, q))
    k = ops.reshape(k, d, 1, size, n)
    keys, scores = (_turned(ops.reshape(ops.mul_mat(x, k), size, size, n_chunks, n_all)) for x in (of_keys, of_queries))
    return keys, scores


def _along(x: Tensor, op: str) -> Tensor:
    return ops.elementwise(op, x)


def _turned(x: Tensor) -> Tensor:
    return ops.cont(ops.transpose(x))


def _chunk(x: Tensor, i: int) -> Tensor:
    return ops.strided(x, (x.ne[0], x.ne[1], 1, x.ne[3]), x.nb[1:], x.nb[2] * i)
