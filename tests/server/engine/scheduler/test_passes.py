"""How often are the weights read for prompts that come together? Steps are divided as llama.cpp divides a batch."""

import random
from collections.abc import Iterator, Sequence

import pytest

from server.engine.scheduler.pace import Pace
from server.engine.scheduler.scheduler import Scheduler
from server.engine.scheduler.slots import Layout
from tests.server.engine.scheduler.test_scheduler import NoMemory, arrive

N_UBATCH = 512
Pieces = Sequence[tuple[int, int]]


def passes(pieces: Pieces) -> Iterator[int]:
    """Tokens of each pass over the weights, of pieces (slot, tokens) in a divided cache.

    Source: llama.cpp 0c1e570 src/llama-batch.cpp, split_equal, sequential.
    """
    left = dict(pieces)
    while left:
        run = [next(iter(left))]
        for slot in left:
            if slot == run[-1] + 1:
                run.append(slot)
        n = min(*(left[slot] for slot in run), max(1, N_UBATCH // len(run)), N_UBATCH)
        for slot in run:
            left[slot] -= n
        left = {slot: n_left for slot, n_left in left.items() if n_left}
        yield n * len(run)


def seconds(pieces: Pieces) -> float:
    """What a step takes where a pass takes as long as four tokens."""
    return sum(0.012 + 0.003 * n for n in passes(pieces))


def as_llama_server(sizes: Sequence[int], n_first: int) -> list[Pieces]:
    """Its two steps: a token of each answer, then all prompts there are. Source: tools/server, update_slots."""
    first, later = list(enumerate(sizes[:n_first])), list(enumerate(sizes))[n_first:]
    return [first, [(slot, 1) for slot, _ in first] + later]


@pytest.mark.parametrize("n_first", [1, 3])
@pytest.mark.parametrize("spread", [0, 4, 15])
def test_a_crowd_takes_fewer_passes_than_with_llama_server(n_first: int, spread: int) -> None:
    """Eight prompts of which some come a moment earlier: fewer passes until everybody has a first token."""
    rng = random.Random(spread)
    sizes = [rng.randint(49 - spread, 49 + spread) for _ in range(8)]
    layout = Layout(n_slots=8, n_ctx_seq=256, n_cells=256, n_batch=N_UBATCH, n_outputs=8)
    planned = Scheduler(layout, NoMemory(), Pace(0.2, N_UBATCH))
    for n in (1, 8, 64):
        planned.pace.learn(n, seconds([(0, n)]))
    crowd = [arrive(planned, order, n) for order, n in enumerate(sizes[:n_first])]
    ours: list[Pieces] = []
    while len(crowd) < 8 or not all(sequence.n_generated for sequence in crowd):
        chunks = planned.plan()
        ours.append([(chunk.slot, len(chunk)) for chunk in chunks])
        planned.done(chunks)
        for chunk in chunks:
            if chunk.row:
                planned.accept(chunk.sequence, 1)
        planned.learn(chunks, seconds(ours[-1]))
        if len(crowd) < 8:
            crowd += [arrive(planned, order + n_first, n) for order, n in enumerate(sizes[n_first:])]
    theirs = as_llama_server(sizes, n_first)
    assert sum(len(list(passes(step))) for step in ours) < sum(len(list(passes(step))) for step in theirs)
    assert sum(map(seconds, ours)) < sum(map(seconds, theirs))
