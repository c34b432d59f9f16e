"""Guesses by a draft model: what it holds, what it is asked to evaluate, and what comes of it."""

from dataclasses import replace
from typing import Any

import pytest

from server.engine.frames import Drafted
from server.engine.scheduler.slots import Layout
from tests.server.engine.driver import Driver
from tests.server.engine.fake_backend import FakeBackend
from tests.server.engine.fake_draft import FakeDraft

ROOM = Layout(n_slots=3, n_ctx_seq=200, n_cells=200, n_batch=40, n_outputs=24, unified=True)


def driven(draft: FakeDraft, room: Layout = ROOM, **drafting: int) -> Driver:
    return Driver(FakeBackend(room, drafters=[draft.drafts(**drafting)]))


def drafted(driver: Driver, id: int) -> list[tuple[int, int]]:
    return [(report.n_drafted, report.n_accepted) for report in driver.of(Drafted, id)]


@pytest.mark.parametrize("room", [ROOM, replace(ROOM, unified=False)], ids=["one cache", "divided"])
def test_a_good_draft(room: Layout) -> None:
    """One that is always right saves all steps but one in four, and is asked for four passes in each: three guesses,
    of which the last is not evaluated, and the last two tokens in one.
    """
    draft = FakeDraft(room)
    driver = driven(draft, room)
    ids = [driver.submit((first, 3, 5), max_tokens=80) for first in (1, 3, 7)]
    driver.finish()

    for id in ids:
        assert driver.answer(id) == driver.expected(id)
        assert all(n_right == n for n, n_right in drafted(driver, id)[:-1])  # the last may end before
    longest = max(len(driver.answer(id)) for id in ids)
    assert len(driver.backend.steps) <= longest / 4 + 2
    assert len(draft.batches) <= 3 * len(driver.backend.steps)
    assert max(n for batch in draft.batches[3:] for _, n in batch) == 2
    driver.check_clean()


def test_a_bad_draft() -> None:
    """One that is always wrong changes nothing but the time, and what it holds is cut back in each step."""
    draft = FakeDraft(ROOM, wrong=1)
    driver = driven(draft, n_max=2)
    id = driver.submit((1, 2, 3), max_tokens=40)
    driver.finish()

    assert driver.answer(id) == driver.expected(id)
    assert {n_right for _, n_right in drafted(driver, id)} <= {0}
    assert max(n for batch in draft.batches[1:] for _, n in batch) == 1
    driver.check_clean()


def test_a_long_prompt_is_read_in_pieces() -> None:
    """Nobody waits for all of it: an answer goes on without guesses until the draft has read its prompt, and others
    have theirs meanwhile. The first token waits for none of it.
    """
    room = replace(ROOM, n_ctx_seq=4000, n_cells=4000, n_batch=400)
    draft = FakeDraft(room)
    driver = driven(draft, room)
    short = driver.submit((1, 2), max_tokens=200)
    for _ in range(3):
        driver.loop.turn()
    long = driver.submit(tuple(range(1, 49)) * 30, max_tokens=60)
    while not driver.answer(long):
        driver.loop.turn()
        assert max(n for batch in draft.batches for _, n in batch) <= 4
    n_steps, n_batches = len(driver.backend.steps), len(draft.batches)
    while not driver.of(Drafted, long):
        driver.loop.turn()
    n_steps = len(driver.backend.steps) - n_steps
    read = [n for batch in draft.batches[n_batches:] for slot, n in batch if n > 4]
    assert sum(read) >= 48 * 30
    assert 5 < len(read) <= n_steps
    driver.finish()
    assert [driver.answer(id) for id in (short, long)] == [driver.expected(id) for id in (short, long)]
    driver.check_clean()


def test_what_is_held_is_not_read_again() -> None:
    """The beginning that prompts have in common is read once; answers to one prompt share it."""
    prefix = tuple(range(1, 41))
    draft = FakeDraft(replace(ROOM, n_batch=100))
    driver = driven(draft)
    first = driver.submit((*prefix, 43), max_tokens=8)
    driver.finish()
    driver.submit((*prefix, 44), max_tokens=8)
    driver.submit((*prefix, 45), max_tokens=8, n=2)
    driver.finish()

    assert driver.of(Drafted, first)
    assert max(n for batch in draft.batches for _, n in batch) == len(prefix) + 2
    assert sum(n > 4 for batch in draft.batches for _, n in batch) == 1


def test_room_for_those_under_way() -> None:
    """What idle slots hold makes room, the longest unused first; an answer for which there is none has no guesses."""
    draft = FakeDraft(replace(ROOM, n_cells=60, n_ctx_seq=60))
    driver = driven(draft, draft.layout)
    for start in range(0, 49, 6):
        id = driver.submit(tuple(1 + (start + i) % 49 for i in range(24)), max_tokens=12)
        driver.finish()
        assert driver.of(Drafted, id)
        assert driver.answer(id) == driver.expected(id)
    driver.check_clean()


def test_limits() -> None:
    """Not more than asked for or than there are rows for, none rather than too few, none of those the draft is not
    sure of; and none by request.
    """
    draft = FakeDraft(ROOM, unsure=1)
    driver = driven(draft, n_max=5)
    wishes: list[dict[str, Any]] = [
        {}, {"draft_max": 2}, {"draft_max": 0}, {"draft_p_min": 0.5}, {"draft_min": 6}, {"max_tokens": 2}
    ]  # fmt: skip
    ids = [driver.submit((3, 2, 9), **{"max_tokens": 30, **wish}) for wish in wishes]
    driver.finish()

    most = [max((n for n, _ in drafted(driver, id)), default=0) for id in ids]
    assert most == [5, 2, 0, 0, 0, 0]
    few = Driver(FakeBackend(replace(ROOM, n_outputs=5), drafters=[FakeDraft(ROOM).drafts(5)]))
    for first in (1, 3, 5):
        few.submit((first, 2), max_tokens=10 * first)
    few.finish()
    assert max(n for id in range(3) for n, _ in drafted(few, id)) == 4  # while one is alone; two rows for three
    few.check_clean()


def test_tokens_that_the_draft_does_not_know() -> None:
    """Vocabularies may differ at the end: an answer with such a token has no guesses from there on."""
    draft = FakeDraft(ROOM, n_vocab=40)
    driver = driven(draft)
    strange = driver.submit((1, 45, 3), max_tokens=30)
    driver.finish()
    assert not driver.of(Drafted, strange)
    assert driver.answer(strange) == driver.expected(strange)
