"""Whatever comes to the loop and its scheduler, over a fake backend: every answer is its prompt's alone."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.backend import Outcome
from server.engine.frames import Broke, Cancel, Ended, Said, Scored, Step, Submit
from server.engine.loop.loop import EngineLoop
from server.engine.media import Read, Span, joined, placeholders
from server.engine.request import GenerationRequest
from server.engine.scheduler.guesses import Drafter
from server.engine.scheduler.lookup import Lookup, Lookups
from server.engine.scheduler.sequence import Chunk
from server.engine.scheduler.slots import Layout
from tests.server.engine.driver import Driver, layout
from tests.server.engine.fake_backend import N_VOCAB, FakeBackend, following
from tests.server.engine.fake_draft import FakeDraft

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


def with_images(arrival: dict[str, Any]) -> dict[str, Any]:
    """The request with images in its prompt, each in front of a token of it."""
    images = arrival.pop("images")
    if not images:
        return arrival
    prompt = arrival["prompt"][: 30 - 3 * len(images)]
    pieces, then = list[Read](), 0
    for place, file in sorted((place % len(prompt), file) for place, file in images):
        pieces.append(Read(tokens=prompt[then:place]))
        pieces.append(Read(tokens=placeholders(file, 0, 3), spans=(Span(start=0, n_tokens=3, n_pos=1, file=file),)))
        then = place
    read = joined([*pieces, Read(tokens=prompt[then:])])
    return {**arrival, "prompt": read.tokens, "spans": read.spans, "n_prompt_logprobs": None}


arrivals = st.fixed_dictionaries(
    {
        "prompt": prompts,
        "images": st.one_of(
            st.just([]), st.lists(st.tuples(st.integers(0, 9), st.sampled_from([b"a", b"b"])), max_size=3)
        ),
        "max_tokens": st.one_of(st.none(), st.integers(0, 12)),
        "n": st.sampled_from([1, 1, 1, 2, 4]),
        "cache_prompt": st.sampled_from([True, True, False]),
        "n_prompt_logprobs": st.sampled_from([None, None, None, 0]),
        "draft_max": st.sampled_from([None, None, 0, 3]),
        "draft_min": st.sampled_from([None, 0, 2]),
        "draft_p_min": st.sampled_from([None, 0.5]),
        "adapters": st.sampled_from([None, None, ((0, 1.0),), ((0, 0.5), (1, 1.0))]),
    }
).map(with_images)
events = st.lists(
    st.one_of(
        arrivals.map(lambda a: ("submit", a)),
        st.integers(0, 3).map(lambda n: ("turn", n)),
        st.integers(0, 30).map(lambda i: ("cancel", i)),
        st.integers(0, 30).map(lambda i: ("cancel one", i)),
    ),
    max_size=25,
)


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


def test_the_first_step_is_counted_at_once() -> None:
    """Counters come now and then, but the first step's with its token: after a crash it is known to have been done."""
    steps = list[Step]()
    loop = EngineLoop(FakeBackend(layout()), steps.append, target_s=0.1)
    loop.put(Submit(0, GenerationRequest(prompt=(1, 2), max_tokens=9)))
    loop.turn()
    (first,) = [step for step in steps if any(isinstance(report, Said) for report in step.reports)]
    assert first.counters is not None
    assert first.counters.n_steps == 1


def test_a_step_goes_on_as_the_one_before() -> None:
    """Answers that go on alone are not planned anew; they are when a request comes, and when one is cancelled."""
    driver = Driver(FakeBackend(layout()))
    plans: list[list[Chunk]] = []
    plan = driver.loop.scheduler.plan

    def kept() -> list[Chunk]:
        plans.append(plan())
        return plans[-1]

    driver.loop.scheduler.plan = kept  # type: ignore[method-assign]
    first, _ = driver.submit((1, 2), max_tokens=12), driver.submit((3, 4), max_tokens=12)
    for _ in range(4):
        driver.loop.turn()
    assert plans[-1] is plans[-2]
    driver.submit((5, 6), max_tokens=12)
    driver.loop.turn()
    assert plans[-1] is not plans[-2]
    for _ in range(3):
        driver.loop.turn()
    assert plans[-1] is plans[-2]
    driver.loop.put(Cancel(first))
    driver.loop.turn()
    assert plans[-1] is not plans[-2]
    driver.finish()
    driver.check_clean()
    assert driver.answer(1) == driver.expected(1)
