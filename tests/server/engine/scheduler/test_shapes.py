"""Steps whose shapes do not depend on who shares them, over a fake backend that keeps the shape of each cell's pass."""

import random
from typing import Any

import pytest

from server.engine.frames import Cancel
from server.engine.scheduler.alike import LONGEST, PIECE, fillers, piece_end, whole
from server.engine.scheduler.pace import Pace
from server.engine.scheduler.scheduler import Scheduler
from server.engine.scheduler.slots import Layout
from tests.server.engine.driver import Driver
from tests.server.engine.fake_backend import N_VOCAB, FakeBackend
from tests.server.engine.scheduler.test_scheduler import NoMemory, arrive

LAYOUT: dict[str, Any] = {
    "n_slots": 6, "n_ctx_seq": 320, "n_cells": 320, "n_batch": 128, "n_outputs": 6, "block": 2
}  # fmt: skip


def pieces(n_tokens: int, start: int = 0, n_max: int = LONGEST) -> list[int]:
    """Lengths of the pieces in which so many tokens are read."""
    found = []
    while start < n_tokens:
        end = piece_end(start, n_tokens, n_max)
        found.append(end - start)
        start = end
    return found


@pytest.mark.parametrize("n_tokens", range(1, 5 * PIECE))
def test_pieces(n_tokens: int) -> None:
    """All but the last are of one length; from what is there of whole ones the rest is read as from the beginning."""
    assert sum(pieces(n_tokens)) == n_tokens
    assert set(pieces(n_tokens)[:-1]) <= {PIECE}
    assert pieces(n_tokens)[-1] <= LONGEST
    assert len(pieces(n_tokens)) == 1 or pieces(n_tokens)[-1] > LONGEST - PIECE
    for n_common in range(n_tokens + 1):
        n = whole(n_common, n_tokens)
        assert n <= n_common
        assert pieces(n_tokens, n) == pieces(n_tokens)[n // PIECE :]
    assert max(pieces(n_tokens, n_max=5)) <= 5


@pytest.mark.parametrize("block", [2, 4, 8])
def test_blocks(block: int) -> None:
    """Slots with those that fill them up are whole blocks, and every run of neighbours is a number of these."""
    rng = random.Random(block)
    for _ in range(100):
        slots = sorted(rng.sample(range(8 * block), rng.randint(1, 8 * block)))
        filled = sorted([*slots, *fillers(slots, block)])
        runs = "".join("x" if slot in filled else " " for slot in range(8 * block)).split()
        assert len(filled) == len(set(filled))
        assert {len(run) % block for run in runs} == {0}
        assert {slot // block for slot in filled} == {slot // block for slot in slots}


@pytest.mark.parametrize("seed", range(30))
def test_shapes_are_those_of_a_lone_request(seed: int) -> None:
    """Whatever comes when, is cancelled, begins alike or is scored: each cell of an answer, whoever computed it, comes
    of a pass of the shape that it would have had alone.
    """
    rng = random.Random(seed)
    common = [[rng.randrange(1, N_VOCAB) for _ in range(250)] for _ in range(2)]
    driver = Driver(FakeBackend(Layout(**LAYOUT)))
    cancelled = set()
    for _ in range(30):
        prompt = rng.choice(common)[: rng.choice([0, 1, 60, 64, 100, 128, 200])]
        prompt += [rng.randrange(1, N_VOCAB) for _ in range(rng.choice([1, 2, 30, 64, 90]))]
        id = driver.submit(
            tuple(prompt), max_tokens=rng.randint(1, 20), n=rng.choice([1, 1, 1, 2]),
            n_prompt_logprobs=rng.choice([None, None, None, 1]), cache_prompt=rng.random() < 0.9,
        )  # fmt: skip
        for _ in range(rng.choice([0, 0, 1, 3, 20])):
            driver.loop.turn()
        if rng.random() < 0.1:
            driver.loop.put(Cancel(id))
            cancelled.add(id)
    driver.finish()
    driver.check_clean()

    assert driver.loop.scheduler.n_cached > 0
    for id, request in driver.requests.items():
        if id not in cancelled:
            alone = Driver(FakeBackend(Layout(**LAYOUT)))
            fields = {name: getattr(request, name) for name in ("max_tokens", "n", "n_prompt_logprobs")}
            alone.submit(request.prompt, **fields)
            alone.finish()
            for index in range(request.n):
                assert driver.answer(id, index) == alone.answer(0, index) == driver.expected(id)
                assert shapes(driver, id, index) == shapes(alone, 0, index)


def shapes(driver: Driver, id: int, index: int) -> list[str]:
    """Of an answer's cells; of one whose only row was another's, that one's."""
    found = driver.backend.shapes
    return found.get((id, index)) or found[id, 0]


def test_readers_wait_for_a_piece_or_for_what_prompts_are_worth() -> None:
    """Between two tokens of an answer one piece of a long prompt goes, or as many of several prompts as take no longer
    than the wait of those who have no token yet is worth.
    """
    planned = Scheduler(Layout(**LAYOUT), NoMemory(), Pace(0.2, 128))
    planned.pace.learn(1, 0.01)
    planned.pace.learn(PIECE, 0.15)
    reader = arrive(planned, 0, 2)

    def step() -> str:
        chunks = planned.plan()
        planned.done(chunks)
        for chunk in chunks:
            if chunk.row:
                planned.accept(chunk.sequence, 1)
        planned.learn(chunks, 0.15 if len(chunks[0]) > 1 else 0.01)
        return "p" if reader not in [chunk.sequence for chunk in chunks] else "."

    step()
    arrive(planned, 1, 300)
    assert "".join(step() for _ in range(8)) == "p.p.p.p."
    for order in range(2, 6):
        arrive(planned, order, 200)
    told = "".join(step() for _ in range(30))
    assert "p" * 4 in told
    assert "p" * 8 not in told
