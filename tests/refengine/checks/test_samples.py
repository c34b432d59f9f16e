"""Which blocks are compared."""

import numpy as np
import pytest

from ggufphys.gguf import GGMLType, TensorInfo
from refengine.blocks import BLOCKS, U8
from refengine.checks.samples import PIECE_BYTES, Sample, random_samples, special_sample, tensor_samples
from refengine.dequant.table import FORMATS


def sampled(n_blocks: int, share: float) -> tuple[list[Sample], U8]:
    data = np.random.default_rng(0).integers(0, 256, 34 * n_blocks, dtype=np.uint8)
    tensor = TensorInfo(name="t", ne=(32 * n_blocks,), ggml_type=GGMLType.Q8_0, offset=0, nbytes=data.size)
    return list(tensor_samples(tensor, memoryview(data.tobytes()), share)), data


def test_random_samples_repeat() -> None:
    """The same seed gives the same blocks, another seed and another type others; the number is what was asked for."""

    def draw(ggml_type: GGMLType, seed: int) -> bytes:
        return b"".join(sample.raw.tobytes() for sample in random_samples(ggml_type, 50_000, seed))

    assert len(draw(GGMLType.Q8_0, 1)) == 50_000 * 34
    assert draw(GGMLType.Q8_0, 1) == draw(GGMLType.Q8_0, 1)
    assert draw(GGMLType.Q8_0, 1) != draw(GGMLType.Q8_0, 2)
    assert draw(GGMLType.Q4_0, 1)[:100] != draw(GGMLType.IQ4_NL, 1)[:100]


@pytest.mark.parametrize("ggml_type", FORMATS, ids=lambda t: t.name)
def test_special_sample(ggml_type: GGMLType) -> None:
    """Every scale of a format takes zeros, subnormals, the largest values, infinities and NaNs."""
    blocks = special_sample(ggml_type).raw.view(BLOCKS[ggml_type])
    scales = [blocks[name] for name in blocks.dtype.names or () if blocks.dtype[name].base.kind == "f"]

    for values in (
        v.reshape(len(blocks), -1)[:, i] for v in scales for i in range(v.reshape(len(blocks), -1).shape[1])
    ):
        magnitudes = np.abs(values[np.isfinite(values)])
        assert {0.0, float(np.finfo(values.dtype).max)} < set(magnitudes.tolist())
        assert ((magnitudes > 0) & (magnitudes < np.finfo(values.dtype).tiny)).any()
        assert np.isinf(values).any()
        assert np.isnan(values).any()
    assert scales or ggml_type in (GGMLType.BF16, GGMLType.MXFP4, GGMLType.NVFP4, GGMLType.IQ1_M)


def test_special_sample_of_other_scales() -> None:
    """Scales of 8 bits take all values; the half in IQ1_M's words takes a half's special ones."""
    e = special_sample(GGMLType.MXFP4).raw.view(BLOCKS[GGMLType.MXFP4])["e"]
    d = special_sample(GGMLType.NVFP4).raw.view(BLOCKS[GGMLType.NVFP4])["d"]
    words = special_sample(GGMLType.IQ1_M).raw.view(BLOCKS[GGMLType.IQ1_M])["scales"]
    halves = special_sample(GGMLType.Q8_0).raw.view(BLOCKS[GGMLType.Q8_0])["d"].view(np.uint16)

    assert set(range(256)) == set(e.tolist())
    assert all(set(range(256)) == set(d[:, i].tolist()) for i in range(4))
    assert set(halves.tolist()) == {sum((w >> 12) << 4 * i for i, w in enumerate(row)) for row in words.tolist()}


def test_small_tensor() -> None:
    """A share of 1 gives every block once, in order."""
    samples, data = sampled(3 * (PIECE_BYTES // 34) + 5, 1.0)

    assert len(samples) == 4
    assert np.concatenate([sample.raw for sample in samples]).tobytes() == data.tobytes()


def test_large_tensor() -> None:
    """A smaller share gives evenly spread pieces, the first and the last blocks among them."""
    n_blocks = 1000 * (PIECE_BYTES // 34)
    samples, data = sampled(n_blocks, 0.01)
    gaps = np.diff([sample.first_block for sample in samples])

    assert len(samples) == 10
    assert samples[0].first_block == 0
    assert samples[-1].first_block + samples[-1].raw.size // 34 == n_blocks
    assert gaps.max() - gaps.min() <= 1
    for name, first, raw in samples:
        assert (name, raw.tobytes()) == ("t", data[34 * first : 34 * first + raw.size].tobytes())
    assert len(sampled(n_blocks, 0.0)[0]) == 2


def test_samples_are_copies() -> None:
    """A sample owns its bytes: C gets no pointer into a mapped file, and alignment is numpy's."""
    (sample,), data = sampled(5, 1.0)

    assert sample.raw.flags.owndata
    assert sample.raw.tobytes() == data.tobytes()
