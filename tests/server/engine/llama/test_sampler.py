"""What is chosen where hardly anything may come, without llama.cpp, which would end its process over a wrong choice."""

from types import SimpleNamespace

import numpy as np
import pytest

from server.engine.llama.sampler import Sampler

INF = float("inf")


def sampler(*, banned: list[int], ends: tuple[int, ...] = (3,)) -> Sampler:
    """One over four tokens that has made no chain of llama.cpp's."""
    made = object.__new__(Sampler)
    made._banned = np.array(banned, np.int32)
    made._vocab = SimpleNamespace(end_tokens=ends)  # type: ignore[assignment]
    made._chain = made._grammar = None
    return made


@pytest.mark.parametrize(
    ("logits", "banned", "end"),
    [
        ([0.0, -INF, -INF, 1.0], [], None),
        ([0.0, -INF, -INF, 1.0], [3], None),
        ([-INF, -INF, -INF, 1.0], [], None),
        ([-INF, -INF, -INF, 1.0], [3], 3),
        ([0.0, 1.0, -INF, 1.0], [0, 1, 3], 3),
    ],
)
def test_where_the_end_alone_is_left(logits: list[float], banned: list[int], end: int | None) -> None:
    """A grammar that leaves nothing but what a request bans ends the answer, where it may end; else bans hold."""
    left = np.array(logits, np.float32)

    assert sampler(banned=banned)._only_end(left) == end
    assert all(left[banned] == -INF)


@pytest.mark.parametrize("banned", [[], [0, 1]])
def test_where_nothing_is_left(banned: list[int]) -> None:
    """A grammar that leaves nothing, or only banned tokens and no end, is the request's fault."""
    left = np.array([0.0 if token in banned else -INF for token in range(4)], np.float32)

    with pytest.raises(ValueError, match="allows none of the model's tokens"):
        sampler(banned=banned)._only_end(left)


@pytest.mark.parametrize(("asked", "kept"), [(-1, 512), (0, 0), (64, 64), (512, 512), (2**31 - 1, 512)])
def test_looking_back(asked: int, kept: int) -> None:
    """A sampler that looks back keeps room for as many tokens as there can be, however many a request asks for."""
    made = sampler(banned=[])
    made._context = SimpleNamespace(n_ctx_seq=512)  # type: ignore[assignment]
    made.n_remembered = 0

    assert made._back(asked) == kept == made.n_remembered
