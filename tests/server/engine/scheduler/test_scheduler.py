"""The scheduler's rules that answers do not show: in which order, in whose slot, and how many tokens."""

from array import array
from collections.abc import Collection
from typing import Any

import pytest

from server.engine.scheduler.pace import MIN_CHUNK, TILE, Pace
from server.engine.scheduler.scheduler import Scheduler
from server.engine.scheduler.sequence import Sequence
from server.engine.scheduler.slots import Layout


class NoMemory:
    """Does what it is told, and has nothing to say."""

    def keep(self, slot: int, n_tokens: int) -> None:
        pass

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        pass

    def resumable(self, slot: int, n_tokens: int) -> bool:
        return False


def scheduler(n_slots: int, **fields: Any) -> Scheduler:
    layout = Layout(n_slots=n_slots, n_ctx_seq=64, n_cells=64, n_batch=64, n_outputs=n_slots, **fields)
    return Scheduler(layout, NoMemory(), Pace(0.1, 64))


def arrive(scheduler: Scheduler, order: int, n_tokens: int = 2) -> Sequence:
    tokens = array("i", range(100 * order, 100 * order + n_tokens))
    sequence = Sequence(id=order, index=0, order=order, tokens=tokens, n_prompt=n_tokens, n_max=60)
    scheduler.add(sequence)
    return sequence


def step(scheduler: Scheduler, seconds: float = 0.1, ending: Collection[Sequence] = ()) -> list[int]:
    """A step in which every answer gets a token, some their last one; the slots in the order of its chunks."""
    chunks = scheduler.plan()
    scheduler.done(chunks)
    for chunk in chunks:
        if chunk.row:
            scheduler.accept(chunk.sequence, 1)
        if chunk.sequence in ending:
            scheduler.finish(chunk.sequence)
    scheduler.learn(chunks, seconds)
    return [chunk.slot for chunk in chunks]


@pytest.mark.parametrize(("n_prompt", "is_accepted"), [(2, True), (2, False), (1, True)])
def test_guesses_are_judged_by_steps_of_answers(n_prompt: int, is_accepted: bool) -> None:
    """A step that read a prompt says nothing of what guesses are worth, whether it was to be answered or not."""
    seen = []

    class Noting:
        def took(self, n_said: int, seconds: float, *, guessed: bool) -> None:
            seen.append(seconds)

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments, **named: {}

    planned = scheduler(2)
    planned.guesser = Noting()  # type: ignore[assignment]
    sequence = arrive(planned, 0, n_prompt)
    chunks = planned.plan()
    planned.done(chunks)
    if is_accepted:
        planned.accept(sequence, 1)
    planned.learn(chunks, 5.0)
    if not is_accepted:
        planned.finish(sequence)
        arrive(planned, 1, n_prompt)
    step(planned, 0.25)
    step(planned, 0.5)
    planned.plan()
    assert seen == ([0.25, 0.5] if is_accepted else [0.5])


def test_slots_are_in_order() -> None:
    """Chunks come in the order of slots, whoever came first: llama.cpp divides a batch where it steps back."""
    planned = scheduler(4)
    first = [arrive(planned, order) for order in range(4)]
    step(planned)
    planned.finish(first[0])
    planned.finish(first[2])
    arrive(planned, 4)
    arrive(planned, 5)
    assert step(planned) == [0, 1, 2, 3]


@pytest.mark.parametrize(("unified", "expected"), [(False, 3), (True, 0)])
def test_slots_beside_those_under_way_are_taken(unified: bool, expected: int) -> None:
    """Of the half that is unused for longest a divided cache gives a slot beside others, one cache the very oldest."""
    planned = scheduler(8, unified=unified)
    first = [arrive(planned, order) for order in range(8)]
    step(planned)
    for slot in (0, 1, 2, 3, 5, 6, 7):  # slot 4 stays under way
        step(planned)
        planned.finish(next(sequence for sequence in first if sequence.slot == slot))
    new = arrive(planned, 8)
    step(planned)
    assert new.slot == expected


def test_crowds_lie_side_by_side() -> None:
    """Whatever came before: eight answers on 32 slots are a pass, not two, wave after wave."""
    planned = scheduler(32)
    order = iter(range(1000))
    for _ in range(9):
        alone = arrive(planned, next(order))
        step(planned)
        planned.finish(alone)
    for _ in range(6):
        crowd = [arrive(planned, next(order)) for _ in range(8)]
        while any(sequence.slot is None for sequence in crowd):
            step(planned)
        slots = sorted(sequence.slot for sequence in crowd if sequence.slot is not None)
        assert slots == list(range(slots[0], slots[0] + 8))
        for sequence in crowd:
            planned.finish(sequence)


def test_readers_wait_longer_where_more_wait_for_their_first_token() -> None:
    """Each prompt that waits is worth the pace once, whoever reads; what is little more goes as a whole."""
    pace = Pace(0.1, 4096)
    for n in (1, 100):
        pace.learn(n, 0.01 + 0.001 * n)
    one = pace.n_prompt(1, 1, 1000)
    assert one == pytest.approx(89, abs=2)
    assert pace.n_prompt(8, 7, 5000) == pytest.approx(682, abs=4)
    assert pace.n_prompt(1, 1, 2 * one) == 2 * one
    assert pace.n_prompt(1, 1, 2 * one + 1) == one
    assert pace.n_prompt(0, 1, 5000) == 4096
    assert pace.n_prompt(4000, 1, 5000) == MIN_CHUNK
    assert pace.n_prompt(4090, 1, 5000) == 6


def test_a_disturbed_step_lets_no_prompt_go_as_a_whole() -> None:
    """Where a small step took longer than a large one, tokens still cost something, and no prompt goes as a whole."""
    pace = Pace(0.1, 4096)
    pace.learn(1, 0.5)
    pace.learn(101, 0.1)
    assert pace.n_prompt(8, 1, 3000) <= MIN_CHUNK


def test_a_deep_prompt_goes_by_tiles() -> None:
    """Where a few tokens take twice as long as the prompt's first ones did, as many go as attention takes together."""
    layout = Layout(n_slots=2, n_ctx_seq=4096, n_cells=8192, n_batch=512, n_outputs=2)
    planned = Scheduler(layout, NoMemory(), Pace(0.01, 512))  # a target that no step keeps to
    reader = arrive(planned, 0)
    reader.n_max = 4096
    step(planned)
    arrive(planned, 1, n_tokens=2000)
    found = []
    for seconds in (0.1, 0.12, 0.19, 0.21, 0.3, 0.2):
        found.append(sum(map(len, planned.plan())) - 1)
        step(planned, seconds)
    assert found == [MIN_CHUNK] * 4 + [TILE] * 2


def test_a_short_prompt_does_not_become_deep_by_its_neighbours() -> None:
    """A prompt is deep by its own steps: one that comes beside a slow one begins anew."""
    layout = Layout(n_slots=2, n_ctx_seq=4096, n_cells=8192, n_batch=512, n_outputs=2)
    planned = Scheduler(layout, NoMemory(), Pace(0.01, 512))
    arrive(planned, 0).n_max = 4096
    step(planned, 0.1)
    late = arrive(planned, 1, n_tokens=400)
    for _ in range(3):
        step(planned, 0.5)
    assert not late.is_deep


def test_answers_wait_while_a_crowd_is_read() -> None:
    """Prompts that came together and take no longer than their wait is worth are read before any answer goes on."""
    layout = Layout(n_slots=16, n_ctx_seq=256, n_cells=4096, n_batch=64, n_outputs=16)
    planned = Scheduler(layout, NoMemory(), Pace(0.1, 64))
    planned.pace.learn(1, 0.011)
    planned.pace.learn(64, 0.074)
    crowd = [arrive(planned, order, n_tokens=32) for order in range(16)]
    sizes = []
    while any(sequence.n_pending > 1 for sequence in crowd):
        chunks = planned.plan()
        sizes.append([len(chunk) for chunk in chunks])
        step(planned, 0.01 + 0.001 * sum(sizes[-1]))
    assert sizes == [[32, 32]] * 8  # nobody's second token before everybody's first
    assert all(sequence.n_generated for sequence in crowd)


def test_answers_go_on_beside_a_prompt_that_takes_longer_than_its_wait_is_worth() -> None:
    """A reader does not wait for several steps of one prompt."""
    layout = Layout(n_slots=2, n_ctx_seq=4096, n_cells=8192, n_batch=64, n_outputs=2)
    planned = Scheduler(layout, NoMemory(), Pace(0.1, 64))
    reader = arrive(planned, 0)
    reader.n_max = 4096
    step(planned, 0.012)
    step(planned, 0.011)
    arrive(planned, 1, n_tokens=2000)
    for _ in range(10):
        chunks = planned.plan()
        assert reader in [chunk.sequence for chunk in chunks]
        step(planned, 0.01 + 0.001 * sum(map(len, chunks)))


@pytest.mark.parametrize(("n_answers", "n_prompts", "expected"), [(1, 3, [1, 2, 3]), (3, 1, [0, 1, 2, 3])])
def test_few_answers_wait_for_the_many_prompts_of_a_step(n_answers: int, n_prompts: int, expected: list[int]) -> None:
    """Answers go behind prompts that are a step of their own where these are more, else beside them."""
    planned = scheduler(4)
    planned.pace.learn(1, 0.011)
    planned.pace.learn(64, 0.074)
    for order in range(n_answers):
        arrive(planned, order)
    step(planned, 0.02)
    for order in range(n_prompts):
        arrive(planned, 10 + order, n_tokens=16)
    assert step(planned, 0.06) == expected
    assert step(planned, 0.02) == [0, 1, 2, 3]


def test_answers_are_not_held_for_ever() -> None:
    """Prompts without end, each answered at once, leave readers a token now and then."""
    planned = scheduler(4)
    planned.pace.learn(1, 0.011)
    planned.pace.learn(64, 0.074)
    reader = arrive(planned, 0)
    step(planned, 0.02)
    n_read = []
    for order in range(0, 80, 2):
        pair = [arrive(planned, 10 + order + i, n_tokens=20) for i in range(2)]
        step(planned, 0.05, ending=pair)
        n_read.append(reader.n_generated)
    assert 4 <= n_read[-1] - n_read[0] <= 8  # 0.4 s of 2.0 at a time


def test_a_turn_of_the_only_ones_is_over_when_others_come() -> None:
    """Who had many steps alone gives way at once to a request with other adapters, though none was planned anew."""
    planned = scheduler(2)
    arrive(planned, 0)
    for _ in range(20):
        step(planned)
    other = arrive(planned, 1)
    other.adapters = ((0, 1.0),)
    assert step(planned) == [other.slot]


@pytest.mark.parametrize(("unified", "n_common", "expected"), [(False, 3, 0), (True, 3, 3), (False, 4, 4)])
def test_a_first_word_in_common_is_nothing_in_a_divided_cache(unified: bool, n_common: int, expected: int) -> None:
    """A prompt that shares less than a tenth with what a slot holds is read whole there."""
    planned = scheduler(2, unified=unified)
    first = arrive(planned, 0, n_tokens=41)
    step(planned)
    planned.finish(first)
    second = arrive(planned, 1, n_tokens=41)
    second.tokens[:n_common] = first.tokens[:n_common]
    planned.plan()
    assert second.n_cached == expected
