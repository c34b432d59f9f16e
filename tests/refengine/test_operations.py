"""Operations that are computed in a quicker way where they can be: what comes is what the plain way gives."""

from typing import Any

import numpy as np
import pytest

from ggufphys.gguf import GGMLType
from ggufphys.graph.ir import Tensor
from ggufphys.graph.rope import Rope
from refengine.blocks import F32
from refengine.ops import attention
from refengine.ops.elementwise import glu, halves
from refengine.ops.rope import rope, turned
from refengine.ops.step import Numerics, Step

N_TOKENS, N_HEADS, HEAD_SIZE = 5, 3, 16


def step_of(op: str, params: tuple[object, ...], out: F32, *sources: Any) -> Step:
    """A node with such operands."""
    types = {"f4": GGMLType.F32, "f2": GGMLType.F16, "i4": GGMLType.I32}
    tensors = [Tensor("NONE", types[array.dtype.str[1:]], array.shape[::-1]) for array in sources]
    node = Tensor(op, GGMLType.F32, out.shape[::-1], tuple(tensors), params=params)
    return Step(node=node, out=out, src=sources, weights=None, numerics=Numerics())  # type: ignore[arg-type]


def random(*shape: int) -> F32:
    """Numbers that are the same each time."""
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("n_tokens", [20, 70])
def test_a_prompt_in_stretches(n_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that are worked on some at a time attend to all cells that they see, in tiles and without."""
    monkeypatch.setattr(attention, "TOKENS", 16)
    mask = np.where(np.arange(96) <= np.arange(n_tokens)[:, np.newaxis] + 9, 0, -np.inf).astype(np.float16)
    q, k, v = random(1, 4, n_tokens, 32), random(1, 2, 96, 32), random(1, 2, 96, 32)[..., ::-1]
    out = np.empty((1, n_tokens, 4, 32), np.float32)
    attention.flash_attn_ext(step_of("FLASH_ATTN_EXT", (0.2, 0.0, 0.0, False), out, q, k, v, mask[None, None]))()

    keys, values = (x.repeat(2, axis=1).astype(np.float64) for x in (k, v))
    weights = np.exp(0.2 * q @ keys.swapaxes(-1, -2) + mask)
    expected = weights / weights.sum(axis=-1, keepdims=True) @ values
    assert np.allclose(out, expected.swapaxes(1, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("op", ["ROPE", "ROPE_BACK"])
@pytest.mark.parametrize("offset", [0, 4])
@pytest.mark.parametrize("in_place", [False, True])
def test_neighbours_as_complex_numbers(op: str, offset: int, in_place: bool) -> None:
    """Turned as one number a pair is what it is turned as two, wherever in a head and in memory they lie."""
    settings = Rope(n_dims=8, mode="norm", n_ctx_orig=64, freq_base=10000.0, attn_factor=0.5, offset=offset)
    heads, positions = random(1, N_TOKENS, N_HEADS, HEAD_SIZE), np.arange(N_TOKENS, dtype=np.int32).reshape(1, 1, 1, -1)
    plain, found = heads.copy(), heads.copy()
    rope(step_of(op, (settings,), plain, heads, positions), turn=turned)()
    rope(step_of(op, (settings,), found, found if in_place else heads, positions))()

    assert not np.array_equal(plain, heads)
    assert np.allclose(found, plain, rtol=0, atol=1e-6)


def test_swiglu() -> None:
    """The SiLU of the first half times the other one; the operand stays as it is."""
    rows = random(1, 1, 4, 32) * 40
    rows[..., 0] = -200  # e^200 is more than a float holds
    out = np.empty((1, 1, 4, 16), np.float32)
    kept = rows.copy()
    glu(step_of("GLU", ("swiglu",), out, rows))()

    gate, up = (half.astype(np.float64) for half in halves(kept))
    assert np.allclose(out, gate / (1 + np.exp(-gate)) * up, rtol=1e-5, atol=1e-30)
    assert np.array_equal(rows, kept)
