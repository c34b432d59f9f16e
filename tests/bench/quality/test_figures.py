"""The figures of `bench quality` against llama-perplexity's own, and the arithmetic below them."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.derive import derived
from bench.quality import base, figures, judging
from bench.quality.command import judged_rows
from bench.quality.readers import F32
from bench.quality.rows import Candidate
from bench.quality.texts import Setting
from bench.quality.windows import Windows, fitting_n_ctx, windows_of
from scripts.check_quality import instructions, off

DATA = Path(__file__).parents[2] / "data" / "quality"
RECORD = json.loads((DATA / "llama-perplexity.json").read_text())
TYPES = ("F16", "Q8_0", "Q4_K_M")
N_VOCAB = 301  # odd: a row on disk is padded


def test_figures_are_llama_perplexitys(tmp_path: Path) -> None:
    """Perplexity, KL divergence, same top and rms Δp of two quants are what llama-perplexity gave, within 1 %.

    On a processor like this one; where it was recorded on no such, perplexities are those of another one.
    """
    of_any, of_this = next(iter(RECORD["rows"].values())), RECORD["rows"].get(instructions())
    setting = Setting(text=(DATA / "text.txt").read_text(), n_ctx=RECORD["n_ctx"])
    candidates = [Candidate(name=name, path=derived(name)) for name in TYPES]

    rows = judged_rows(candidates, setting, base_file=tmp_path / "base", forget=True)

    wrong = [
        (row["model"], name, row[name], figure)
        for row, expected in zip(rows, of_this or of_any, strict=True)
        for name, figure in expected.items()
        if (of_this or name == "perplexity") and off(row[name], figure)
    ]
    assert not wrong
    assert not (tmp_path / "base").exists()


def logits(seed: int, n: int = 40) -> tuple[F32, np.ndarray[tuple[int], np.dtype[np.int32]]]:
    generator = np.random.default_rng(seed)
    rows = generator.normal(0, 4, (n, N_VOCAB)).astype(np.float32)
    return rows, generator.integers(0, N_VOCAB, n, dtype=np.int32)


def test_divergence_is_what_its_definition_says() -> None:
    """Judged in blocks by threads beside a base on 16 bits, rows have the KL divergence of their distributions."""
    rows, targets = logits(0)
    theirs = rows + np.random.default_rng(1).normal(0, 0.3, rows.shape).astype(np.float32)
    kept = np.zeros((len(rows), base.row_length(N_VOCAB)), np.uint16)
    judge = judging.Judge(2)

    alone = judge.keep(rows, targets, kept)
    found = judge.beside(theirs, targets, kept)
    judge.close()

    p, q = (np.exp(x - x.max(1, keepdims=True)).astype(np.float64) for x in (rows, theirs))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    kl = (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(found.kl, kl, atol=1e-4)
    assert found.kl.mean() == pytest.approx(kl.mean(), rel=1e-3)
    np.testing.assert_allclose(found.nll, -np.log(q[np.arange(40), targets]), atol=1e-5)
    in_reach = alone.nll < 16  # what is further away, a row does not say
    np.testing.assert_allclose(found.nll_base[in_reach], alone.nll[in_reach], atol=2e-4)
    np.testing.assert_array_equal(found.same_top, p.argmax(1) == q.argmax(1))
    np.testing.assert_allclose(judging.of_base(targets, kept).nll, found.nll_base, atol=1e-6)


@pytest.mark.parametrize("noise", [0, 1e-4, 1e-3])
def test_divergence_below_zero_is_the_rounding_of_the_base(noise: float) -> None:
    """Of exact log-probabilities it never is. On 16 bits the base's probabilities add up to 1 + e, and a row comes to e
    at least, which may be below 0: the sum of p ln(p/q) is no less than that of p less that of q.
    """
    rows, targets = logits(0)
    theirs = rows + np.random.default_rng(1).normal(0, noise, rows.shape).astype(np.float32)
    kept = np.zeros((len(rows), base.row_length(N_VOCAB)), np.uint16)
    judge = judging.Judge(1)
    judge.keep(rows, targets, kept)
    found = judge.beside(theirs, targets, kept)
    judge.close()

    log_p, log_q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (rows.astype(float), theirs.astype(float)))
    head = np.ascontiguousarray(kept[:, : base.HEAD]).view(np.float32).astype(float)
    rounded = head[:, :1] * kept[:, base.HEAD : base.HEAD + N_VOCAB] + head[:, 1:]
    excess = np.where(rounded > -judging.LOWEST, np.exp(rounded), 0).sum(1) - 1
    exact = (np.exp(log_p) * (log_p - log_q)).sum(1)

    assert exact.min() >= 0
    assert found.kl.min() < 0
    assert (found.kl >= excess - 1e-6).all()  # the arithmetic of rows is F32's
    np.testing.assert_allclose(found.kl, exact, atol=1e-4)  # less than half a step, 16 / 65,535 / 2


def test_row_without_differences_is_kept() -> None:
    """A model that finds all tokens alike has a range of nothing; its row on disk says so, without a division by it."""
    rows, targets = np.zeros((2, N_VOCAB), np.float32), np.zeros(2, np.int32)
    kept = np.zeros((2, base.row_length(N_VOCAB)), np.uint16)
    judge = judging.Judge(1)

    judge.keep(rows, targets, kept)
    found = judge.beside(rows, targets, kept)
    judge.close()

    np.testing.assert_allclose(found.kl, 0, atol=1e-6)
    np.testing.assert_allclose(found.nll_base, np.log(N_VOCAB), rtol=1e-6)


def test_windows_share_nothing_and_are_judged_by_half() -> None:
    """Of eleven tokens in windows of four, three windows' worth is too much: two are read, one token of each judged."""
    windows = windows_of(np.arange(11, dtype=np.int32), n_ctx=4, n_chunks=0, bos=99)

    assert windows.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows.targets.tolist() == [[3], [7]]
    assert windows.read.tolist() == [[99, 1, 2, 3], [99, 5, 6, 7]]


def test_short_texts_get_shorter_windows() -> None:
    """A window is halved until two fit, down to 16 tokens."""
    assert [fitting_n_ctx(n, 512) for n in (2000, 1023, 300, 20)] == [512, 256, 128, 16]


def test_text_shorter_than_a_window_is_refused() -> None:
    """The message says how many tokens there are and what to do."""
    with pytest.raises(ValueError, match="7 tokens, expected at least 16, one window: give more text"):
        windows_of(np.arange(7, dtype=np.int32), n_ctx=16, n_chunks=0, bos=None)


def test_interval_holds_the_mean_and_narrows() -> None:
    """Of windows drawn from one distribution, the interval holds the mean and is narrower for more of them."""
    generator = np.random.default_rng(2)
    few, many = (figures.drawn_interval(generator.normal(5, 1, (n, 1)), lambda means: means[:, 0]) for n in (20, 2000))

    assert few is not None
    assert many is not None
    assert few[0] < 5 < few[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 4
    assert figures.drawn_interval(np.ones((1, 1)), lambda means: means[:, 0]) is None


@pytest.mark.parametrize("n", [8, 40])
def test_intervals_hold_what_they_say(n: int) -> None:
    """Of 400 sets of windows, as few as a large model is judged by, about 95 % have the true mean in their interval."""
    generator = np.random.default_rng(3)
    intervals = [figures.drawn_interval(generator.normal(0, 1, (n, 1)), lambda means: means[:, 0]) for _ in range(400)]

    held = sum(interval is not None and interval[0] <= 0 <= interval[1] for interval in intervals) / 400
    assert 0.92 <= held <= 0.98


def test_base_of_another_text_is_refused(tmp_path: Path) -> None:
    """What was kept for one text is not taken for another's; a broken file is told from a foreign one."""
    windows = Windows(np.arange(32, dtype=np.int32).reshape(2, 16), None)
    with base.written(tmp_path / "base", windows, N_VOCAB) as kept:
        kept.rows[:] = 7

    assert (base.opened(tmp_path / "base", windows, N_VOCAB).rows == 7).all()
    with pytest.raises(base.BaseFileError, match="another text"):
        base.opened(tmp_path / "base", Windows(windows.tokens + 1, None), N_VOCAB)
    with pytest.raises(base.BaseFileError, match="n_vocab 301, expected 302"):
        base.opened(tmp_path / "base", windows, N_VOCAB + 1)
    (tmp_path / "base").write_bytes((tmp_path / "base").read_bytes()[:-1])
    with pytest.raises(base.BaseFileError, match="cut off"):
        base.opened(tmp_path / "base", windows, N_VOCAB)


def test_unigram_of_equal_frequencies_is_their_number() -> None:
    """Eight tokens, equally often, are as perplexing as a fair die of eight sides; 1/2, 1/4, 1/4 have 1.5 bits."""
    assert figures.unigram_perplexity(np.tile(np.arange(8, dtype=np.int32), 5)) == pytest.approx(8)
    assert figures.unigram_perplexity(np.array([3, 3, 1, 7], np.int32)) == pytest.approx(2**1.5)
