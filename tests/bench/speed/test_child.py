"""What the measuring process counts."""

from types import SimpleNamespace

import pytest

pytest.importorskip("llama_cpp")

from bench.speed.child import Runner


@pytest.mark.parametrize(("first_s", "other_s", "n"), [(100.0, 5.0, 1), (1.0, 0.5, 7)])
def test_a_first_prompt_does_not_count(first_s: float, other_s: float, n: int) -> None:
    """Its pages were never used: it is left out, however long a prompt takes."""
    seconds = iter([first_s, *[other_s] * 20])
    runner = SimpleNamespace(
        batch=SimpleNamespace(capacity=512), look=lambda n: None, clear=lambda: None,
        some=lambda n, of: [0] * n, step=lambda tokens, start: next(seconds),
    )  # fmt: skip

    assert Runner.prefill(runner, 512) == [other_s] * n  # type: ignore[arg-type]
