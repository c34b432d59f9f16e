"""Numbers that follow from unknowns: right wherever the questions that were asked of them have the same answers."""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufphys.arch.caches import row_bytes
from ggufphys.context import pad_ctx
from ggufphys.gguf import GGMLType
from ggufphys.graph.affine import Trace, at

PROGRAMS: Final[tuple[Callable[[int, int], int], ...]] = (
    lambda n, m: n + 3 - m,
    lambda n, m: 5 - 2 * n + m * 4,
    lambda n, m: (256 * n + 7) // 64 + m,
    lambda n, m: (256 * n + 300) % 128 + m,
    lambda n, m: n // 3 + m % 2,
    lambda n, m: n * m + 1,
    lambda n, m: min(n, 5) + max(m, 3),
    lambda n, m: 1000 // (n + 1) + 1000 % (m + 1),
    lambda n, m: pad_ctx(min(256 * n, 1000)) * 2,
    lambda n, m: row_bytes(GGMLType.Q8_0, 256 * n) * 3,
    lambda n, m: len(range(n)) if n == m else n - n,
    lambda n, m: int(n / 2) if m else n,
    lambda n, m: {1: 10, 2: 20}.get(n, 0),
)
POINTS: Final = st.tuples(st.integers(0, 12), st.integers(0, 12))


@given(program=st.sampled_from(PROGRAMS), here=POINTS, there=POINTS)
def test_a_trace_says_where_it_holds(
    program: Callable[[int, int], int], here: tuple[int, int], there: tuple[int, int]
) -> None:
    """A result is that of plain numbers at the trace's own point, and at every other where its questions hold."""
    trace = Trace(here)
    result = program(trace.unknown(0), trace.unknown(1))

    assert at(result, here) == program(*here)
    if trace.holds_at(there):
        assert at(result, there) == program(*there)


def test_what_is_affine_holds_everywhere() -> None:
    """Sums, multiples and exact quotients ask nothing; what cancels out is a plain number again."""
    trace = Trace((3, 1))
    n, m = trace.unknown(0, 256), trace.unknown(1)
    size = (2 * n + 512) // 32 * 5 + m - 1

    assert not trace.questions
    assert [at(size, point) for point in ((3, 1), (100, 7))] == [320, 8086]
    assert n - n == 0
    assert type(n + 1 - n) is int
    assert n % 64 == 0


@pytest.mark.parametrize("decides", [lambda n: n < 5, lambda n: n * n, lambda n: n // 2, lambda n: range(n), hash])
def test_what_decides_is_asked(decides: Callable[[int], object]) -> None:
    """Comparisons, products and conversions do not hold where they would give something else."""
    trace = Trace((3,))
    decides(trace.unknown(0))

    assert trace.holds_at((3,))
    assert not trace.holds_at((6,))


def test_sizes_are_compared_with_sizes() -> None:
    """Anything else is a mistake, not a difference."""
    with pytest.raises(TypeError, match="a size compared with"):
        bool(Trace((3,)).unknown(0) == object())


def test_questions_aside_are_forgotten() -> None:
    """What is asked aside has its answer, and makes no difference to where a trace holds."""
    trace = Trace((3,))
    n = trace.unknown(0)
    assert n > 2
    with trace.aside():
        assert n < 4
        assert not trace.holds_at((7,))

    assert trace.holds_at((7,))
    assert not trace.holds_at((1,))
