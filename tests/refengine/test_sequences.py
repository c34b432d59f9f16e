"""Several sequences in one context, against llama.cpp fed with the same batches."""

from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refengine
from refengine.batch import Tokens, batch_of
from refengine.checks.logits import agreement
from tests.refengine import tiny
from tests.refengine.beside_llama import compare_batches

N_UBATCH = 48
F32: dict[str, Any] = {"type_k": "f32", "type_v": "f32", "flash_attn": False}

# (sequence, tokens) in order: prompts, steps and both mixed; sequences that join late, pause, and come out of order.
PLAN = (
    [(0, 20)],
    [(1, 33), (0, 1)],
    [(0, 1), (1, 1), (2, 40)],
    [(2, 1), (0, 1)],
    [(1, 2), (2, 2), (1, 3), (0, 5)],
    [(0, 120), (2, 1), (1, 70)],
    [(3, 5)],
    [(0, 1), (1, 1), (2, 1), (3, 1)],
    [(3, 3), (1, 1)],
)


def batches(n_vocab: int, seed: int = 3) -> list[Tokens]:
    """`PLAN` with random tokens, the logits of every other token wanted."""
    rng = np.random.default_rng(seed)
    lengths: dict[int, int] = {}
    made = []
    for parts in PLAN:
        rows: list[tuple[int, int, int, bool]] = []
        for sequence, n in parts:
            for _ in range(n):
                position = lengths.get(sequence, 0)
                lengths[sequence] = position + 1
                rows.append((int(rng.integers(0, n_vocab)), position, sequence, len(rows) % 2 == 0))
        made.append(batch_of(rows))
    return made


# Attention, a window shorter than the prompts, states alone, both in each layer, a delta net beside attention; pools of
# positions.
COMMON = ("llama", "gemma3", "mamba2", "falcon-h1", "qwen3next", "glm5-next")
# Chosen blocks and cells, n-grams, lightning attention, short convolutions, adapters, RWKV,
# compressed blocks beside a window.
RARE = ("minimax-m3", "qwen4exp", "deepseek32", "minimax-01", "kimi-k3", "graniteswitch", "rwkv7", "deepseek4")


@pytest.mark.parametrize("name", [*COMMON, *(pytest.param(name, marks=pytest.mark.slow) for name in RARE)])
@pytest.mark.parametrize("kv_unified", [False, True])
def test_sequences(name: str, kv_unified: bool, tmp_path: Path) -> None:
    """Sequences see themselves alone, whether they share the cells of one cache or not, in prompts and steps alike."""
    path = tiny.write(tmp_path / "f32.gguf", name)
    settings: dict[str, Any] = {"n_ctx": 1024, "n_seq_max": 4, "n_ubatch": N_UBATCH, "n_threads": 2}
    caches: tuple[dict[str, Any], ...] = (F32, {})
    models = [refengine.load(path, kv_unified=kv_unified, **settings, **cache) for cache in caches]

    f32, flash = compare_batches(models, batches(models[0].h.n_vocab))

    assert f32.nmse <= 1e-10
    assert flash.nmse <= 1e-7


def test_alone_or_together(tmp_path: Path) -> None:
    """A sequence's logits are the same in company as by itself."""
    path = tiny.write(tmp_path / "f32.gguf", "falcon-h1")
    together = refengine.load(path, n_ctx=1024, n_seq_max=4, n_ubatch=N_UBATCH, **F32)
    plan = batches(together.h.n_vocab)
    found = np.concatenate([together.decode(batch) for batch in plan])
    alone = refengine.load(path, n_ctx=512, **F32)
    asked = [batch.sequences[batch.outputs] for batch in plan]

    for sequence in range(4):
        ids = np.concatenate([batch.ids[batch.sequences == sequence] for batch in plan])
        positions = [batch.positions[batch.outputs][batch.sequences[batch.outputs] == sequence] for batch in plan]
        expected = alone.logits(ids.tolist())[np.concatenate(positions)]
        assert agreement(expected, found[np.concatenate(asked) == sequence]).nmse < 1e-10


def of_one(n_vocab: int, *lengths: int) -> list[Tokens]:
    """One sequence of random tokens in batches of these lengths; the logits of every seventh are wanted."""
    ends = list(accumulate(lengths))
    ids = np.random.default_rng(1).integers(0, n_vocab, ends[-1])
    return [
        Tokens(
            ids=ids[a:b], positions=np.arange(a, b), sequences=np.zeros(b - a, np.int64),
            wanted=np.arange((b - a - 1) % 7, b - a, 7),
        )
        for a, b in pairwise([0, *ends])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cache", "limit"), [("gemma2", F32, 1e-10), ("gpt-oss", {}, 1e-7), ("deepseek4", F32, 1e-10)]
)
def test_longer_than_all(name: str, cache: dict[str, Any], limit: float, tmp_path: Path) -> None:
    """A prompt longer than window and physical batch, whose cells are then used again."""
    path = tiny.write(tmp_path / "f32.gguf", name)
    model = refengine.load(path, n_ctx=1024, n_ubatch=N_UBATCH, n_threads=2, **cache)

    [found] = compare_batches([model], of_one(model.h.n_vocab, 400, 1, 118, 1))

    assert found.nmse <= limit


@pytest.mark.slow
def test_chunks(tmp_path: Path) -> None:
    """llama4's windows are chunks of 8,192 positions: a prompt that goes over their edge, and a step behind it."""
    path = tiny.write(tmp_path / "f32.gguf", "llama4")
    model = refengine.load(path, n_ctx=8704, n_threads=2, **F32)

    [found] = compare_batches([model], of_one(model.h.n_vocab, 8170, 60, 1))

    assert found.nmse <= 1e-10


def test_refused(tmp_path: Path) -> None:
    """What llama.cpp would not take is told before anything is computed."""
    model = refengine.load(tiny.write(tmp_path / "f32.gguf", "llama"), n_ctx=512, n_seq_max=2)

    for rows, match in (
        ([(1, 0, 2, True)], "use more n_seq_max"),
        ([(1, 1, 0, True)], "expected 1 from 0 on"),
        ([(1, 0, 0, True), (1, 0, 0, True)], "expected 2 from 0 on"),
        ([(1, i, 1, True) for i in range(257)], "use more n_ctx"),
        ([(300, 0, 0, True)], "expected 0 to 299"),
        ([], "expected at least one"),
    ):
        with pytest.raises(ValueError, match=match):
            model.decode(batch_of(rows))
