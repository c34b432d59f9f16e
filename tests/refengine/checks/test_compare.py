"""What counts as equal, and what a difference says."""

from math import inf, nan

import numpy as np
import pytest

from ggufphys import UnsupportedError
from ggufphys.gguf import GGMLType
from refengine.blocks import F32, U8
from refengine.checks.compare import Difference, Verdict, compare, difference
from refengine.checks.samples import Sample
from refengine.dequant.table import dequantize


def f32(*values: float) -> F32:
    return np.array(values, np.float32)


def found(ours: F32, theirs: F32) -> Difference:
    return difference(ours, theirs, Sample("t.weight", 7, np.empty(0, np.uint8)), 32)


def test_equal() -> None:
    """The same bits are equal, and any NaN equals any NaN."""
    quiet, payload = np.array([0x7FC00000, 0xFFC00123], np.uint32).view(np.float32)

    assert found(f32(1, -0.0, inf), f32(1, -0.0, inf)) == Difference()
    assert found(f32(1, quiet), f32(1, payload)) == Difference()


@pytest.mark.parametrize(
    ("ours", "theirs", "max_abs"),
    [(1.5, 1.0, 0.5), (0.0, -0.0, 0.0), (nan, 1.0, inf), (inf, -inf, inf), (inf, 1.0, inf)],
)
def test_different(ours: float, theirs: float, max_abs: float) -> None:
    """Zeros of different signs differ by 0; a NaN or Inf facing another value differs infinitely."""
    zeros = [0.0] * 33
    expected = f"t.weight, block 8, weight 1: {ours} here, {theirs} there"

    assert found(f32(*zeros, ours), f32(*zeros, theirs)) == Difference(n_different=1, max_abs=max_abs, first=expected)


def test_sum() -> None:
    """Differences add up; the first stays the first."""
    first, second = Difference(n_different=1, max_abs=2.0, first="a"), Difference(n_different=2, max_abs=1.0, first="b")

    assert Difference(n_different=3, max_abs=2.0, first="a") == Difference() + first + second


def test_verdicts() -> None:
    """A row is exact when every reference agrees, differs when one does not, unsupported when none answers."""

    def wrong(ggml_type: GGMLType, raw: U8) -> F32:
        return dequantize(ggml_type, raw) + np.float32(1)

    def silent(ggml_type: GGMLType, raw: U8) -> F32:
        raise UnsupportedError("no code")

    def row(**references: object) -> tuple[Verdict, Difference | None, Difference | None]:
        samples = [Sample("a", 5, np.zeros(34, np.uint8)), Sample("b", 0, np.zeros(68, np.uint8))]
        row = compare(GGMLType.Q8_0, "test", samples, references)  # type: ignore[arg-type]
        assert (row.n_blocks, row.n_weights) == (3, 96)
        return row.verdict, row.ggml, row.gguf

    assert (Verdict.EXACT, Difference(), None) == row(ggml=dequantize, gguf=silent)
    assert row(ggml=silent) == (Verdict.UNSUPPORTED, None, None)
    verdict, ggml, gguf = row(ggml=dequantize, gguf=wrong)
    assert (Verdict.DIFFERS, Difference()) == (verdict, ggml)
    assert gguf == Difference(n_different=96, max_abs=1.0, first="a, block 5, weight 0: 0.0 here, 1.0 there")
