"""Requests that run side by side in the loop: what they share, who waits, who gives way."""

import itertools
from typing import Any

import numpy as np
import pytest

from server.engine.backend import Outcome
from server.engine.frames import Began, Broke, Cancel, Embed, Embedded, Preempted, Said
from server.engine.sampling import Sampling
from server.engine.scheduler.turns import STEPS
from tests.server.engine.driver import Driver, layout
from tests.server.engine.fake_backend import FakeBackend


def test_adapters_take_turns() -> None:
    """Answers with different adapters are never in one step; each set has its turn, some steps long, none starves."""
    backend = FakeBackend(layout(n_slots=4, n_ctx_seq=40, n_outputs=4))
    driver = Driver(backend)
    sets = ((), ((0, 1.0),), ((1, 1.0),), ((0, 1.0),))
    ids = [driver.submit((7, 9, 11), adapters=each, max_tokens=30) for each in sets]
    driver.finish()

    for id in ids:
        assert driver.answer(id) == driver.expected(id)
    turns = [{driver.requests[id].adapters for id, _, _ in step} for step in backend.steps]
    assert all(len(turn) == 1 for turn in turns)
    assert turns[0] != turns[STEPS]
    first_seen = [next(i for i, turn in enumerate(turns) if each in turn) for each in sets]
    assert max(first_seen) <= 2 * STEPS
    n_changes = sum(a != b for a, b in itertools.pairwise(turns))
    assert n_changes <= len(turns) / 4
    driver.check_clean()


def test_what_other_adapters_computed_is_not_reused() -> None:
    """A prompt that memory holds from other adapters is evaluated again, which the report says."""
    backend = FakeBackend(layout())
    driver = Driver(backend)
    prompt = (1, 2, 3, 4, 5)
    for each in (None, ((0, 1.0),), None, ((0, 1.0),), ((0, 0.5),)):
        driver.submit(prompt, adapters=each, max_tokens=2)
        driver.finish()

    begun = [driver.of(Began, id)[0] for id in range(5)]
    assert [(each.n_cached, each.reevaluated) for each in begun] == [
        (0, ""), (0, "adapters"), (4, ""), (4, ""), (0, "adapters"),
    ]  # fmt: skip


def test_answers_run_side_by_side() -> None:
    """As many answers as there are slots get a token in each step; a prompt that comes later rides along."""
    driver = Driver(FakeBackend(layout(n_slots=3)))
    for first in (1, 2, 3):
        driver.submit((first,), max_tokens=6)
    driver.loop.turn()
    driver.loop.turn()

    assert [len(step) for step in driver.backend.steps] == [3, 3]
    driver.finish()


def test_shared_prefix_is_evaluated_once() -> None:
    """Of prompts that arrive together and begin alike, the beginning is evaluated once."""
    prefix = tuple(range(1, 31))
    driver = Driver(FakeBackend(layout(unified=True, n_slots=4, n_outputs=4, n_cells=400, n_ctx_seq=400)))
    for last in (40, 41, 42, 43):
        driver.submit((*prefix, last), max_tokens=1)
    driver.finish()

    assert driver.backend.n_evaluated == len(prefix) + 4
    assert [driver.of(Began, id)[0].n_cached for id in range(4)] == [0, 30, 30, 30]
    driver.check_clean()


def test_several_answers_from_one_prompt() -> None:
    """`n` answers evaluate their prompt once, in a unified cache and in a divided one."""
    for unified in (True, False):
        driver = Driver(FakeBackend(layout(unified=unified, n_cells=400, n_ctx_seq=400)))
        id = driver.submit(tuple(range(1, 21)), max_tokens=1, n=3)
        driver.finish()

        assert driver.backend.n_evaluated == 20
        assert [driver.answer(id, index) for index in range(3)] == [driver.expected(id)] * 3


def test_the_youngest_gives_way() -> None:
    """When cells run out, the youngest answer is put back and evaluated again later; both come out whole."""
    driver = Driver(FakeBackend(layout(unified=True, n_slots=2, n_outputs=2)))
    old = driver.submit((5, 6, 7), max_tokens=30)
    young = driver.submit((8, 9, 10), max_tokens=30)
    driver.finish()

    assert not driver.of(Preempted, old)
    assert driver.of(Preempted, young)
    assert driver.answer(old) == driver.expected(old)
    assert driver.answer(young) == driver.expected(young)
    assert driver.loop.scheduler.reevaluated["preempted"] > 0


@pytest.mark.parametrize(
    ("kind", "second", "reason"),
    [
        ("recurrent", (1, 2, 3, 9), "recurrent"),
        ("recurrent", (1, 2, 3, 4, 5, 6, 7, 8, 9, 10), "recurrent"),
        ("window", (1, 2, 3, 9), "window"),
        ("full", (1, 2, 3, 9), ""),
    ],
)
def test_why_a_prompt_is_evaluated_again(kind: str, second: tuple[int, ...], reason: str) -> None:
    """Where memory held tokens that cannot be gone on from, the report and the counters say why."""
    driver = Driver(FakeBackend(layout(kind=kind, n_slots=1)))
    driver.submit((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), max_tokens=3)
    driver.finish()
    again = driver.submit(second, max_tokens=1)
    driver.finish()

    began = driver.of(Began, again)[0]
    assert began.reevaluated == reason
    assert (began.n_cached > 0) == (reason == "")
    assert set(driver.loop.scheduler.reevaluated) == ({reason} if reason else set())


def test_a_conversation_goes_on_in_a_recurrent_memory() -> None:
    """A prompt that goes on from all that memory holds is not evaluated again, whatever the memory."""
    driver = Driver(FakeBackend(layout(kind="recurrent", n_slots=1)))
    first = driver.submit((1, 2, 3), max_tokens=3)
    driver.finish()
    said = driver.answer(first)
    more = driver.submit((1, 2, 3, *said, 7), max_tokens=1)
    driver.finish()

    assert driver.of(Began, more)[0].n_cached == 3 + len(said) - 1  # the last token said was never evaluated


def test_a_short_prompt_overtakes_a_long_one() -> None:
    """A prompt that fits beside half of a long one is answered first, and the long one goes on meanwhile."""
    driver = Driver(FakeBackend(layout(n_ctx_seq=400, n_cells=400)))
    long = driver.submit(tuple(range(1, 49)) * 3, max_tokens=1)
    driver.loop.turn()
    short = driver.submit((5,), max_tokens=1)
    driver.finish()

    order = [report.id for report in driver.reports if isinstance(report, Said)]
    assert order == [short, long]


def test_refused_by_the_sampler() -> None:
    """What cannot be sampled so is the request's fault, and nothing of it remains."""
    driver = Driver(FakeBackend(layout()))
    id = driver.submit((1,), sampling=Sampling(mirostat=2))
    driver.loop.turn()

    assert driver.of(Broke, id)[0].fault == "request"
    driver.check_clean()


def test_an_unwanted_step_is_ended() -> None:
    """Cancelling all requests of a step asks the backend to end it; cancelling one of several does not."""
    backend: FakeBackend
    asked: list[bool] = []

    def cancel_in_the_middle() -> Outcome | None:
        driver.loop.put(Cancel(0))
        asked.append(backend.aborted)
        driver.loop.put(Cancel(1))
        asked.append(backend.aborted)
        return Outcome.ABORTED if backend.aborted else None

    backend = FakeBackend(layout(), on_decode=cancel_in_the_middle)
    driver = Driver(backend)
    driver.submit((1, 2, 3), max_tokens=5)
    driver.submit((4, 5, 6), max_tokens=5)
    driver.finish()

    assert asked == [False, True]
    assert driver.loop.counters.n_aborts == 1
    driver.check_clean()


def test_texts_to_embed_do_not_stall_answers() -> None:
    """An answer gets a token between any two texts of a list, and lists take turns; each has its own vectors."""
    driver = Driver(FakeBackend(layout(n_batch=64)))
    id = driver.submit((1, 2, 3), max_tokens=20)
    driver.loop.turn()
    long, short = ((1,) * 5, (1,) * 6, (1,) * 7, (1,) * 8), ((1,) * 9,)
    driver.loop.put(Embed(100, long, None))
    driver.loop.put(Embed(101, short, None))
    before = len(driver.answer(id))
    for _ in range(5):
        driver.loop.turn()
    embedded = [report for report in driver.reports if isinstance(report, Embedded)]
    assert [report.id for report in embedded] == [101, 100]
    lengths = [[np.frombuffer(row, np.float32)[0] for row in rows] for rows in embedded[1].rows]
    assert lengths == [[5], [6], [7], [8]]
    assert len(driver.answer(id)) - before == 5
    driver.finish()
    assert driver.answer(id) == driver.expected(id)


def test_an_error_ends_what_was_under_way_alone() -> None:
    """A decode that fails fails the requests in it; those that wait are answered, from an empty memory."""
    failures = iter([True])

    def fail() -> None:
        if next(failures, False):
            raise ZeroDivisionError("a bug")

    driver = Driver(FakeBackend(layout(n_slots=1, n_outputs=1), on_decode=fail))
    broken = driver.submit((1, 2), max_tokens=2)
    fine = driver.submit((1, 2), max_tokens=2)
    driver.finish()

    assert driver.of(Broke, broken)[0].message == "a bug"
    assert driver.answer(fine) == driver.expected(fine)
    assert len(driver.warnings) == 1


def test_many_waiting_cost_little() -> None:
    """A thousand requests that wait do not make a step slow: who waits is not looked at while no slot is free."""
    driver = Driver(FakeBackend(layout(n_ctx_seq=4000, n_cells=4000)))
    for _ in range(1000):
        driver.submit(tuple(range(1, 49)) * 20, max_tokens=3)
    driver.loop.turn()
    calls = 0
    find = driver.loop.scheduler.slots.find

    def counted(sequence: Any) -> Any:
        nonlocal calls
        calls += 1
        return find(sequence)

    driver.loop.scheduler.slots.find = counted  # type: ignore[method-assign]
    for _ in range(20):
        driver.loop.turn()

    assert calls <= 60


def test_a_long_text_does_not_stall_answers() -> None:
    """It is embedded piece by piece, with a step of answers between two of them."""
    driver = Driver(FakeBackend(layout(n_batch=64)))
    driver.submit((1, 2), max_tokens=30)
    driver.loop.turn()
    driver.loop.put(Embed(100, ((5,) * 500,), None))
    for _ in range(20):
        driver.loop.turn()
        if any(isinstance(report, Embedded) for report in driver.reports):
            break

    assert len(driver.answer(0)) > 8
    driver.finish()
    (embedded,) = [report for report in driver.reports if isinstance(report, Embedded)]
    assert np.frombuffer(embedded.rows[0][0], np.float32)[0] == 500


def test_a_cancelled_text_is_not_read_further() -> None:
    """What comes behind it is embedded at once."""
    driver = Driver(FakeBackend(layout(n_batch=64)))
    driver.loop.put(Embed(100, ((5,) * 500,), None))
    for _ in range(2):
        driver.loop.turn()
    driver.loop.put(Cancel(100))
    driver.loop.put(Embed(101, ((5,) * 3,), None))
    driver.loop.turn()

    (embedded,) = [report for report in driver.reports if isinstance(report, Embedded)]
    assert (embedded.id, driver.loop.counters.n_prompt_tokens) == (101, 2 * 64 + 3)
