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
    ours, theirs = as_planned(sizes, n_first), as_llama_server(sizes, n_first)
    assert sum(len(list(passes(step))) for step in ours) < sum(len(list(passes(step))) for step in theirs)
    assert sum(map(seconds, ours)) < sum(map(seconds, theirs))


@pytest.mark.parametrize("seed", range(4))
def test_a_large_crowd_takes_no_longer_than_with_llama_server(seed: int) -> None:
    """Prompts of four steps, all nearly as long: those of a step lie side by side, though some are a little shorter."""
    rng = random.Random(seed)
    sizes = [rng.randint(57, 71) for _ in range(32)]
    assert sum(map(seconds, as_planned(sizes, 1))) < 1.01 * sum(map(seconds, as_llama_server(sizes, 1)))


def as_planned(sizes: Sequence[int], n_first: int) -> list[Pieces]:
    """Our steps until all of a crowd have a first token, some of whom came before the others."""
    n = len(sizes)
    layout = Layout(n_slots=n, n_ctx_seq=256, n_cells=256, n_batch=N_UBATCH, n_outputs=n)
    planned = Scheduler(layout, NoMemory(), Pace(0.2, N_UBATCH))
    for n_tokens in (1, 8, 64):
        planned.pace.learn(n_tokens, seconds([(0, n_tokens)]))
    crowd = [arrive(planned, order, n) for order, n in enumerate(sizes[:n_first])]
    ours: list[Pieces] = []
    while len(crowd) < n or not all(sequence.n_generated for sequence in crowd):
        chunks = planned.plan()
        ours.append([(chunk.slot, len(chunk)) for chunk in chunks])
        planned.done(chunks)
        for chunk in chunks:
            if chunk.row:
                planned.accept(chunk.sequence, 1)
        planned.learn(chunks, seconds(ours[-1]))
        if len(crowd) < n:
            crowd += [arrive(planned, order + n_first, n) for order, n in enumerate(sizes[n_first:])]
    return ours
