"""Requests whose time is over."""

import time

from server.engine.frames import Began, Broke, Said
from server.engine.request import GenerationRequest
from tests.server.engine.driver import Driver, layout
from tests.server.engine.fake_backend import FakeBackend


def test_deadlines() -> None:
    """A request fails if its time is over while it waits, or before its first token, and is cut off behind that."""
    now = time.perf_counter()
    driver = Driver(FakeBackend(layout(n_slots=1, n_outputs=1)))
    running = driver.submit((1, 2), max_tokens=30)
    late = driver.submit((3,), begins_by_s=now, ends_by_s=now)
    in_time = driver.submit((5,), max_tokens=3, begins_by_s=now + 60, ends_by_s=now + 60)
    driver.loop.turn()

    assert [broke.fault for broke in driver.of(Broke, late)] == ["deadline"]
    assert not driver.of(Began, late)
    driver.finish()
    assert driver.answer(running) == driver.expected(running)
    assert driver.answer(in_time) == driver.expected(in_time)
    assert driver.loop.counters.finished["deadline"] == 1

    begun = driver.submit(tuple(range(1, 30)), begins_by_s=time.perf_counter() + 60)
    driver.loop.turn()
    driver.loop._jobs._deadlines.add(begun, GenerationRequest(prompt=(1,), begins_by_s=now))
    driver.loop.turn()
    assert not driver.of(Broke, begun)  # its turn had come
    driver.loop._jobs._deadlines.add(begun, GenerationRequest(prompt=(1,), ends_by_s=now))
    driver.loop.turn()
    assert [broke.fault for broke in driver.of(Broke, begun)] == ["deadline"]
    driver.check_clean()


def test_an_answer_is_cut_off_at_its_deadline() -> None:
    """Once there is a first token, the deadline ends an answer as a length does."""
    driver = Driver(FakeBackend(layout(), on_decode=lambda: time.sleep(0.03)))
    id = driver.submit((1, 2), max_tokens=30, ends_by_s=time.perf_counter() + 0.1)
    driver.finish()

    assert 0 < len(driver.answer(id)) < 30
    assert driver.of(Said, id)[-1].reason == "length"
    assert not driver.of(Broke, id)
