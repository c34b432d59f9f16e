"""Inputs that only some architectures have.

Source: llama.cpp 0c1e570 src/models/minimax-01.cpp, llm_graph_input_la::set_input; src/models/granite-switch.cpp,
llm_graph_input_switch::set_input; src/models/qwen4exp.cpp, llm_graph_input_qwen4exp_ple::set_input.
"""

from collections.abc import Mapping
from math import log2
from typing import Final

import numpy as np

from ggufphys.graph.ir import Tensor
from refengine.arrays import Array
from refengine.blocks import F32
from refengine.inputs.filling import Fill, Filling

ROUTER_GAIN: Final = 15.0  # unless the file says otherwise

# -- minimax-01: what is left of a state after so many tokens, as exponents


def _slopes(n_head: int) -> F32:
    """How fast each head forgets: powers of a root of one half."""
    ratio = np.float32(2) ** -(np.float32(2) ** np.float32(-(log2(n_head) - 3)))
    powers: F32 = ratio ** np.arange(1, n_head + 1, dtype=np.float32)
    return powers


def _la_slopes(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = _slopes(array.shape[3])


def _la_q_decay(tensor: Tensor, array: Array, filling: Filling) -> None:
    """From the beginning of the batch to each token, `(N, T, H, 1)`."""
    n_tokens, n_head = array.shape[1:3]
    array[...] = (-_slopes(n_head) * np.arange(1, n_tokens + 1, dtype=np.float32)[:, np.newaxis])[..., np.newaxis]


def _la_k_decay(tensor: Tensor, array: Array, filling: Filling) -> None:
    """From each token to the end of the batch, `(N, T, H, 1)`."""
    n_tokens, n_head = array.shape[1:3]
    array[...] = (-_slopes(n_head) * np.arange(n_tokens, dtype=np.float32)[::-1, np.newaxis])[..., np.newaxis]


def _la_diag_decay(tensor: Tensor, array: Array, filling: Filling) -> None:
    """From each token to each later one, `(N, H, T later, T)`; minus infinity to earlier ones."""
    n_head, n_tokens = array.shape[1:3]
    numbers = np.arange(n_tokens, dtype=np.float32)
    distance = numbers[:, np.newaxis] - numbers
    array[...] = np.where(distance >= 0, -_slopes(n_head)[:, np.newaxis, np.newaxis] * distance, np.float32(-np.inf))


# -- graniteswitch: which tokens switch to an adapter, and which stand for them


def _table(filling: Filling, name: str) -> tuple[int, ...]:
    numbers = filling.keys.numbers(f"adapters.{name}")
    return numbers if isinstance(numbers, tuple) else ()


def _adapters(filling: Filling) -> Array:
    """The number of the adapter that each token switches to, 0 where it switches to none."""
    slots = {token: i for i, token in enumerate(_table(filling, "token_ids_activate"), 1)}
    return np.array([slots.get(token, 0) for token in filling.tokens.ids.tolist()])


def _switched_tokens(tensor: Tensor, array: Array, filling: Filling) -> None:
    pairs = zip(_table(filling, "token_ids_activate"), _table(filling, "token_ids_substitute"), strict=True)
    others = dict(pairs)
    array[0, 0, 0] = [others.get(token, token) for token in filling.tokens.ids.tolist()]


def _router_q(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[...] = 1


def _router_k(tensor: Tensor, array: Array, filling: Filling) -> None:
    gain = np.float32(filling.keys.real("adapters.router_gain", ROUTER_GAIN))
    array[0, 0, 0] = np.where(_adapters(filling) > 0, gain, -gain)


def _router_v(tensor: Tensor, array: Array, filling: Filling) -> None:
    array[0, 0, 0] = _adapters(filling)


# -- qwen4exp: n-grams, hashed to rows of a table


def _ngrams(tensor: Tensor, array: Array, filling: Filling) -> None:
    """For each token a row of each head: the hash of the last 2, 3, ... tokens. What ends a text ends n-grams too."""
    keys, tokens = filling.keys, filling.tokens
    size, per_size = keys.integer("ple.ngram_size"), keys.integer("ple.heads_per_ngram")
    multipliers, offsets, n_rows = (
        keys.per_layer(f"ple.{name}", n, 0)
        for name, n in (
            ("layer_multipliers", size), ("head_offsets", (size - 1) * per_size),
            ("head_vocab_sizes", (size - 1) * per_size),
        )
    )  # fmt: skip
    end, cells = keys.integer("ple.eos_token_id"), next(iter(filling.taken))
    rows = array.reshape(len(tokens), (size - 1) * per_size)
    for row, token, position, sequence in zip(
        rows, tokens.ids.tolist(), tokens.positions.tolist(), tokens.sequences.tolist(), strict=True
    ):
        mixed, is_cut = token * multipliers[0], False
        for n in range(1, size):
            before = None if is_cut or position < n else cells.id_at(sequence, position - n)
            is_cut = is_cut or before is None or before == end
            mixed ^= ((end if before is None else before) * multipliers[n]) % (1 << 64)
            for head in range((n - 1) * per_size, n * per_size):
                row[head] = mixed % n_rows[head] + offsets[head]


OTHER: Final[Mapping[str, Fill]] = {
    "la_slopes": _la_slopes,
    "la_q_decay": _la_q_decay,
    "la_k_decay": _la_k_decay,
    "la_diag_decay": _la_diag_decay,
    "switched_tokens": _switched_tokens,
    "router_q": _router_q,
    "router_k": _router_k,
    "router_v": _router_v,
    "ngrams": _ngrams,
}
