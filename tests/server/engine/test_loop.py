"""The loop and its scheduler over a fake backend, whose answers tell whether memory held exactly what it should."""

import itertools
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.backend import Outcome
from server.engine.frames import (
    Began,
    Broke,
    Cancel,
    Drafted,
    Embed,
    Embedded,
    Ended,
    Preempted,
    Report,
    Said,
    Scored,
    Step,
    Submit,
)
from server.engine.loop import EngineLoop
from server.engine.protocol import GenerationRequest
from server.engine.sampling import Sampling
from server.engine.scheduler.guesses import Drafter
from server.engine.scheduler.lookup import Lookup, Lookups
from server.engine.scheduler.slots import Layout
from server.engine.scheduler.turns import STEPS
from tests.server.engine.fake_backend import N_VOCAB, FakeBackend, answer_to, following
from tests.server.engine.fake_draft import FakeDraft


class Driver:
    """Turns a loop by hand and keeps what it reports."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.reports: list[Report] = []
        self.warnings: list[str] = []
        self.loop = EngineLoop(backend, self._take, target_s=0.1, warn=self.warnings.append)
        self.n_submitted = 0
        self.requests: dict[int, GenerationRequest] = {}

    def _take(self, step: Step) -> None:
        self.reports += step.reports

    def submit(self, prompt: tuple[int, ...], **fields: Any) -> int:
        id = self.n_submitted
        self.n_submitted += 1
        self.requests[id] = GenerationRequest(prompt=prompt, **fields)
        self.loop.put(Submit(id, self.requests[id]))
        return id

    def finish(self) -> None:
        for _ in range(100_000):
            self.loop.turn()
            scheduler = self.loop.scheduler
            if not scheduler.active and not scheduler.waiting:
                return
        pytest.fail("it does not come to an end")

    def of(self, kind: type[Any], id: int) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind) and report.id == id]

    def answer(self, id: int, index: int = 0) -> list[int]:
        return [said.token for said in self.of(Said, id) if said.answer == index]

    def expected(self, id: int) -> list[int]:
        request = self.requests[id]
        room = self.backend.layout.n_ctx_seq + 1 - len(request.prompt)
        return answer_to(
            request.prompt, room if request.max_tokens is None else min(request.max_tokens, room),
            request.adapters or (),
        )  # fmt: skip

    def check_clean(self) -> None:
        """Nothing is left of what was under way, and the cells are counted as memory has them."""
        scheduler = self.loop.scheduler
        assert not self.warnings, "\n".join(self.warnings)
        assert self.backend.n_choosers == 0
        assert scheduler.slots.cells.n_busy == 0
        assert scheduler.slots.cells.n_used == self.backend.n_used
        for slot, held in zip(scheduler.slots.all, self.backend._memory, strict=True):
            assert list(slot.tokens) == [token for _, token in held]


def layout(**fields: Any) -> Layout:
    values: dict[str, Any] = {"n_slots": 3, "n_ctx_seq": 40, "n_cells": 40, "n_batch": 8, "n_outputs": 3, **fields}
    return Layout(**values)


GUESSING = Lookups(n_match=1, n_max=6)
LAYOUTS = [
    layout(unified=True, n_outputs=12),
    layout(unified=True, n_outputs=7, n_batch=5),
    layout(n_outputs=12),
    layout(kind="window", n_outputs=12),
    layout(unified=True),
    layout(unified=True, n_slots=5, n_outputs=5, n_batch=4),
    layout(),
    layout(n_slots=1, n_outputs=1),
    layout(kind="window"),
    layout(kind="window", unified=True),
    layout(kind="recurrent"),
    layout(kind="recurrent", unified=True),
]

guessing = st.fixed_dictionaries(
    {
        "ways": st.sampled_from([(), ("lookup",), ("draft",), ("draft",), ("lookup", "draft")]),
        "n_max": st.integers(1, 6),
        "kind": st.sampled_from(["full", "full", "window"]),
        "n_batch": st.sampled_from([5, 8, 40]),
        "wrong": st.sampled_from([0, 2, 5]),
        "unsure": st.sampled_from([0, 3]),
        "n_vocab": st.sampled_from([N_VOCAB, N_VOCAB, N_VOCAB - 5]),
        "failures": st.lists(st.sampled_from([False, False, True]), max_size=8),
    }
)


def drafters_of(
    room: Layout, *, ways: tuple[str, ...], n_max: int, kind: Any, n_batch: int, failures: list[bool], **options: int
) -> list[Drafter]:
    """What guesses for a backend with such room; a state cannot go back behind wrong guesses."""
    if room.kind == "recurrent":
        return []
    fails = iter(failures)
    own = replace(room, kind=kind, n_batch=n_batch, n_outputs=room.n_slots)
    draft = FakeDraft(own, fails=lambda: next(fails, False), **options)
    made: dict[str, Drafter] = {"lookup": Lookup(GUESSING), "draft": draft.drafts(n_max)}
    return [made[way] for way in ways]


prompts = st.one_of(
    st.lists(st.integers(1, 49), min_size=1, max_size=30).map(tuple),
    # Beginnings in common, so that prefixes are shared, waited for and cut.
    st.integers(1, 30).map(lambda n: tuple(range(1, n + 1))),
    st.tuples(st.integers(1, 20), st.integers(1, 49)).map(lambda p: (*range(1, p[0] + 1), p[1])),
)
arrivals = st.fixed_dictionaries(
    {
        "prompt": prompts,
        "max_tokens": st.one_of(st.none(), st.integers(0, 12)),
        "n": st.sampled_from([1, 1, 1, 2, 4]),
        "cache_prompt": st.sampled_from([True, True, False]),
        "n_prompt_logprobs": st.sampled_from([None, None, None, 0]),
        "draft_max": st.sampled_from([None, None, 0, 3]),
        "draft_min": st.sampled_from([None, 0, 2]),
        "draft_p_min": st.sampled_from([None, 0.5]),
        "adapters": st.sampled_from([None, None, ((0, 1.0),), ((0, 0.5), (1, 1.0))]),
    }
)
events = st.lists(
    st.one_of(
        arrivals.map(lambda a: ("submit", a)),
        st.integers(0, 3).map(lambda n: ("turn", n)),
        st.integers(0, 30).map(lambda i: ("cancel", i)),
        st.integers(0, 30).map(lambda i: ("cancel one", i)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("kind", ["full", "window"])
def test_guesses(kind: Any) -> None:
    """An answer that repeats itself takes fewer steps with guesses, and is the same; what was guessed is counted."""
    steps = {}
    for drafters in ([], [Lookup(Lookups(n_match=3, n_max=8))]):
        room = layout(kind=kind, n_ctx_seq=400, n_cells=400, n_outputs=30, n_batch=40)
        backend = FakeBackend(room, drafters=drafters)
        driver = Driver(backend)
        ids = [driver.submit((2, first), max_tokens=120) for first in (1, 5, 9)]
        driver.finish()
        assert [driver.answer(id) for id in ids] == [driver.expected(id) for id in ids]
        assert all(len(driver.answer(id)) == 120 for id in ids)
        steps[len(drafters)] = len(backend.steps)
        driver.check_clean()

    plain, guessed = steps.values()
    counters, reports = driver.loop.counters, [r for id in ids for r in driver.of(Drafted, id)]
    assert guessed < 0.5 * plain
    assert counters.n_drafted == sum(r.n_drafted for r in reports)
    assert counters.n_draft_accepted == sum(r.n_accepted for r in reports)
    assert counters.n_drafts == len(reports)
    assert 0.5 * counters.n_drafted < counters.n_draft_accepted <= counters.n_drafted


def test_guesses_by_request() -> None:
    """A request has no guesses if it wants none, and no more at a time than it allows."""
    room = layout(n_ctx_seq=200, n_cells=200, n_outputs=30, n_batch=40)
    driver = Driver(FakeBackend(room, drafters=[Lookup(GUESSING)]))
    ids = [driver.submit((2, 1), max_tokens=100, draft_max=n) for n in (0, 3, None)]
    driver.finish()

    most = [max((r.n_drafted for r in driver.of(Drafted, id)), default=0) for id in ids]
    assert most == [0, 3, 6]


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


@settings(max_examples=60, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    events=events,
    outcomes=st.lists(st.sampled_from([None, None, None, Outcome.FULL, Outcome.ABORTED]), max_size=10),
    spare=st.integers(0, 2),
    guessing=guessing,
)
def test_nothing_is_lost(
    layout: Layout,
    events: list[tuple[str, Any]],
    outcomes: list[Outcome | None],
    spare: int,
    guessing: dict[str, Any],
) -> None:
    """Whatever arrives, is cancelled, finds no room or is aborted, and whatever is guessed, right or wrong, by a draft
    model that fails now and then: every answer is its prompt's, whole, once, and a cancelled one a beginning of it; in
    the end nothing is held for anybody.
    """
    queue = list(outcomes)
    drafters = drafters_of(layout, **guessing)

    def outcome() -> Outcome | None:
        what = queue.pop(0) if queue else None
        # Only a step that nobody waits for is aborted, as the loop asks for it; and one alone always has room.
        is_due = backend.aborted if what is Outcome.ABORTED else len(driver.loop.scheduler.active) > 1
        return what if is_due else None

    backend = FakeBackend(
        layout, spare=spare if layout.unified and layout.kind == "full" else 0, on_decode=outcome, drafters=drafters
    )
    driver = Driver(backend)
    cancelled: set[int] = set()
    cancelled_answers: set[tuple[int, int]] = set()
    for what, value in events:
        match what:
            case "submit":
                driver.submit(**value)
            case "turn":
                for _ in range(value):
                    driver.loop.turn()
            case "cancel" if value < driver.n_submitted:
                cancelled.add(value)
                driver.loop.put(Cancel(value))
            case "cancel one" if value < driver.n_submitted:
                cancelled_answers.add((value, 0))
                driver.loop.put(Cancel(value, 0))
    driver.finish()

    driver.check_clean()
    ends: dict[tuple[int, int], int] = defaultdict(int)
    for report in driver.reports:
        if isinstance(report, Ended) or (isinstance(report, Said) and report.reason is not None):
            ends[report.id, report.answer] += 1
    for id, request in driver.requests.items():
        broken = driver.of(Broke, id)
        if broken:
            n_most = min(len(request.prompt) + (request.max_tokens or 99), layout.n_ctx_seq)
            assert n_most > backend._n_cells, broken  # it never had room
            continue
        for index in range(request.n):
            assert ends[id, index] == 1
            answer, expected = driver.answer(id, index), driver.expected(id)
            if id in cancelled or (id, index) in cancelled_answers:
                assert answer == expected[: len(answer)]
            else:
                assert answer == expected
        if request.n_prompt_logprobs is not None and id not in cancelled and (id, 0) not in cancelled_answers:
            scores = [info for scored in driver.of(Scored, id) for info in scored.tokens]
            assert [info.token for info in scores] == list(request.prompt[1:])
            for at, info in enumerate(scores, 1):  # likely exactly where the model would have said it
                assert info.logprob is not None
                likeliest = following(request.prompt[:at], request.adapters or ())
                assert (info.logprob > -3.5) == (likeliest == request.prompt[at])


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
    driver = Driver(FakeBackend(layout()))
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
