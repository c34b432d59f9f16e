"""Answers that are gathered: what their readers get, and when it was, is what each token by itself would have made."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.counters import Counters
from server.engine.events import Event, Failed, Finished, FinishReason, Piece, TokenInfo
from server.engine.frames import Began, Broke, Cancel, Drafted, Ended, Preempted, Report, Said, Step, Submit
from server.engine.generation import Generation
from server.engine.readers.gathering import Gathering
from server.engine.readers.readers import Readers
from server.engine.request import GenerationRequest


@dataclass
class Plan:
    """A request, its answers' tokens, and what becomes of it: when it is cancelled, breaks, guesses, is put back."""

    request: GenerationRequest
    tokens: list[list[bytes]]
    reason: FinishReason | None  # of the last token; None: an answer ends without one
    cancelled_at: int = -1
    broken_at: int = -1
    drafted: frozenset[int] = frozenset()
    preempted: frozenset[int] = frozenset()


@dataclass
class World:
    """Plans, step by step, through what gathers, or past it, to their readers. A cancel is obeyed `lag` steps later."""

    plans: list[Plan]
    counted: frozenset[int]  # steps that bring counters
    lag: int
    gathers: bool
    n_told: int = 0
    cancels: list[tuple[int, Cancel]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = 0
        self.gathering, self.readers = Gathering(), Readers(lambda cancel: self.cancels.append((self.now, cancel)))
        self.generations = [Generation(plan.request) for plan in self.plans]
        self.left = [{index: list(tokens) for index, tokens in enumerate(plan.tokens)} for plan in self.plans]

    def run(self) -> None:
        for id, generation in enumerate(self.generations):
            generation.submitted_at = 0.0
            self.readers.add(id, generation)
            if self.gathers:
                self.gathering.expect(Submit(id, generation.request))
        self._tell([Began(id, 1, "") for id in range(len(self.plans))])
        while any(self.left):
            self.now += 1
            for id in range(len(self.plans)):
                self._tell(self._step(id))

    def _tell(self, reports: list[Report]) -> None:
        step = Step(float(self.now), reports, Counters() if self.now in self.counted else None)
        left = self.gathering.take(step)
        if left is not None:
            self.n_told += 1
            self.readers.take(left)

    def _step(self, id: int) -> list[Report]:
        plan, answers, now = self.plans[id], self.left[id], self.now
        reports: list[Report] = []
        if answers and now == plan.broken_at:
            answers.clear()
            return [Broke(id, "it broke", "engine")]
        for index, tokens in list(answers.items()):
            if now == plan.cancelled_at or (now - self.lag, Cancel(id, index)) in self.cancels:
                reports.append(Ended(id, index, "cancelled"))
                del answers[index]
                continue
            if now in plan.preempted:
                reports.append(Preempted(id, index))
            if now in plan.drafted:
                reports.append(Drafted(id, index, 3, 1))
            if tokens:
                piece = tokens.pop(0)
                reason = None if tokens else plan.reason
                info = TokenInfo(token=now, piece=piece, logprob=-1.0) if plan.request.n_logprobs is not None else None
                reports.append(Said(id, index, now, piece, info, reason == "stop", reason))
                if reason is not None:
                    del answers[index]
            elif plan.reason is None:
                reports.append(Ended(id, index, "length"))
                del answers[index]
        return reports

    def found(self, id: int) -> list[Any]:
        """Each answer's text, tokens, times and end; and whatever else there is, in order."""
        events: list[Event] = []
        while (event := self.generations[id].next_event(0)) is not None:
            events.append(event)
        per_answer = []
        for index in range(self.plans[id].request.n):
            pieces = [event for event in events if isinstance(event, Piece) and event.index == index]
            per_answer.append((
                "".join(piece.text for piece in pieces),
                [token for piece in pieces for token in piece.tokens],
                [at_s for piece in pieces for at_s in piece.times_s],
                [event for event in events if isinstance(event, Finished) and event.index == index],
            ))  # fmt: skip
        assert self.generations[id].n_pieces == [len(times_s) for _, _, times_s, _ in per_answer]
        return [per_answer, [event for event in events if not isinstance(event, Piece | Finished)]]


TEXT = st.lists(st.sampled_from(("ab", "aba", "b\n", "\n  c", "é🙂", "c", "🙂")), max_size=12).map("".join)


@st.composite
def plans(draw: Callable[..., Any]) -> Plan:
    n = draw(st.integers(1, 3))
    tokens = []
    for _ in range(n):
        raw = b"c" + draw(TEXT).encode() + draw(st.sampled_from([b"", b"\xff", b"\xf0\x9f"]))
        cuts = sorted(draw(st.sets(st.integers(1, len(raw)), max_size=12)) - {len(raw)})
        tokens.append([raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)])
    steps = st.frozensets(st.integers(1, 12), max_size=3)
    request = GenerationRequest(
        prompt=(1,), n=n, whole=draw(st.booleans()),
        stop=draw(st.sampled_from([(), ("ab",), ("aba", "b\n"), ("é🙂",)])),
        n_indent=draw(st.sampled_from([0, 0, 2])), n_logprobs=draw(st.sampled_from([None, None, 2])),
        return_tokens=draw(st.booleans()), show_end=draw(st.booleans()), max_tokens=draw(st.sampled_from([None, 3])),
    )  # fmt: skip
    return Plan(
        request, tokens, draw(st.sampled_from(["stop", "length", None])), draw(st.sampled_from([-1, -1, 0, 3, 6])),
        draw(st.sampled_from([-1, -1, -1, 4])), draw(steps), draw(steps),
    )  # fmt: skip


@given(st.lists(plans(), min_size=1, max_size=3), st.frozensets(st.integers(1, 14), max_size=4), st.integers(1, 3))
def test_readers_get_the_same(plans: list[Plan], counted: frozenset[int], lag: int) -> None:
    """Texts, tokens, times, ends, figures and cancels are those of tokens one by one; nothing is kept in the end."""
    gathered, single = (World(plans, counted, lag, gathers) for gathers in (True, False))
    for world in (gathered, single):
        world.run()

    assert gathered.cancels == single.cancels
    for id in range(len(plans)):
        assert gathered.found(id) == single.found(id)
    assert not gathered.gathering._requests


def request(**fields: Any) -> GenerationRequest:
    return GenerationRequest(prompt=(1,), **{"whole": True, **fields})


def test_readers_are_told_twice_of_an_answer() -> None:
    """Of its beginning and of its end, and else with counters alone, as one piece."""
    plan = Plan(request(), [[b"a"] * 100], "length", drafted=frozenset(range(1, 100)))
    world = World([plan], frozenset({50}), 1, True)
    world.run()

    assert world.n_told == 3
    events = [world.generations[0].next_event(0) for _ in range(4)]
    assert [type(event) for event in events[1:]] == [Piece, Piece, Finished]
    assert isinstance(events[1], Piece)
    assert (events[1].text, len(events[1].times_s)) == (50 * "a", 50)


@pytest.mark.parametrize("fields", [{"stop": ("ba",)}, {"n_indent": 1}])
def test_an_end_by_its_text_is_told_at_once(fields: dict[str, Any]) -> None:
    """A stop string, or a line of too few blanks, does not wait for the counters."""
    plan = Plan(request(**fields), [[b"a", b"b", b"a\nc", *[b"d"] * 50]], "length")
    world = World([plan], frozenset(), 1, True)
    world.run()

    assert [at for at, _ in world.cancels] == [3]


def test_a_request_that_wants_pieces_is_let_by() -> None:
    """Streams wait for nothing, whatever is gathered beside them."""
    plans = [Plan(request(), [[b"a"] * 9], "length"), Plan(request(whole=False), [[b"b"] * 9], "length")]
    world = World(plans, frozenset(), 1, True)
    world.run()

    assert world.n_told == 1 + 9 + 1
    assert world.generations[1].n_pieces == [9]


def test_what_fails_before_its_first_token() -> None:
    """The error comes, and nothing is left."""
    world = World([Plan(request(n=2), [[b"a"], [b"b"]], "stop", broken_at=1)], frozenset(), 1, True)
    world.run()

    assert world.generations[0].next_event(0) is not None
    assert world.generations[0].next_event(0) == Failed(message="it broke", fault="engine")
    assert not world.gathering._requests


def test_pieces_of_one_kind() -> None:
    """A gathered piece differs from one that was shown at once in nothing but what was joined."""
    worlds = [World([Plan(request(), [[b"a"]], "stop")], frozenset(), 1, gathers) for gathers in (True, False)]
    for world in worlds:
        world.run()
    first, second = ([world.generations[0].next_event(0) for _ in range(3)] for world in worlds)

    assert first == second
    assert isinstance(first[1], Piece)
    assert replace(first[1], times_s=()) == Piece(text="a")
