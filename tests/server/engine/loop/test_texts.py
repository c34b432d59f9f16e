"""Which texts go into a pass together? Room, turns, what belongs to whom, and how many may wait."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from server.engine.backend import Reading
from server.engine.errors import QueueFullError
from server.engine.frames import Embed
from server.engine.loop.texts import Texts
from server.engine.loop.threaded import ThreadedEngine
from server.engine.model_info import Pooling
from server.engine.protocol import EngineStatus
from server.engine.request import ActiveAdapters
from server.engine.scheduler.slots import Layout
from tests.server.engine.fake_backend import FakeBackend


def texts(*lists: tuple[int, list[int]], n_texts: int = 4, n_tokens: int = 10) -> Texts:
    """Requests by number, with texts of so many tokens."""
    found = Texts(n_texts, n_tokens)
    for id, lengths in lists:
        found.add(Embed(id, tuple((id,) * n for n in lengths), "mean"))
    return found


def test_several_requests_share_a_pass() -> None:
    """Each list's next text in turn, until texts or tokens are as many as there is room for."""
    waiting = texts((1, [3, 3, 3]), (2, [2]), (3, [4]))

    first = waiting.take()
    assert [len(prompt) for prompt in first.prompts] == [3, 2, 4]
    assert [asked.command.id for asked in first.owners] == [1, 2, 3]
    over = waiting.done(first, [[b"a"], [b"b"], [b"c"]])
    assert [(each.id, each.rows) for each in over] == [(2, ((b"b",),)), (3, ((b"c",),))]
    second = waiting.take()
    assert [len(prompt) for prompt in second.prompts] == [3, 3]
    assert waiting.done(second, [[b"d"], [b"e"]])[0].rows == ((b"a",), (b"d",), (b"e",))
    assert not waiting


def test_a_long_text_is_alone() -> None:
    """It comes to its turn whatever its length, and nothing is put beside it."""
    waiting = texts((1, [1, 1]), (2, [50]), (3, [1]))

    assert [len(prompt) for prompt in waiting.take().prompts] == [1, 1, 1]
    assert [len(prompt) for prompt in waiting.take().prompts] == [50]


def test_no_more_texts_than_sequences() -> None:
    """llama.cpp knows so many sequences in a batch."""
    waiting = texts((1, [1] * 3), (2, [1] * 3), n_texts=4)

    assert len(waiting.take().prompts) == 4
    assert len(waiting.take().prompts) == 2


def test_what_is_computed_otherwise_is_not_mixed() -> None:
    """A pass has one kind of pooling, and one set of adapters."""
    waiting = Texts(4, 10)
    for each in (Embed(1, ((1,),), "mean"), Embed(2, ((2,),), "last"), Embed(3, ((3,),), "mean", ((0, 1.0),))):
        waiting.add(each)
    waiting.add(Embed(4, ((4,),), "mean"))

    found = [waiting.take() for _ in range(3)]
    assert [[asked.command.id for asked in each.owners] for each in found] == [[1, 4], [2], [3]]


def test_a_failed_pass_ends_its_requests_alone() -> None:
    """Those that had no text in it wait on; a cancelled one is forgotten, whatever comes of its pass."""
    waiting = texts((1, [5, 5]), (2, [5]), (3, [5]))
    waiting.cancel(3)

    taken = waiting.take()
    waiting.add(Embed(4, ((4,),), "mean"))
    assert waiting.fail(taken) == [2, 1]
    left = waiting.take()
    waiting.cancel(4)
    assert waiting.done(left, [[b"x"]]) == []
    assert not waiting


def test_no_more_than_may_wait() -> None:
    """Requests for vectors have places as those for text do: one more than can run and wait is refused at once."""
    may_go = threading.Event()

    class Slow(FakeBackend):
        def embed(
            self,
            prompts: Sequence[Sequence[int]],
            pooling: Pooling | None,
            adapters: ActiveAdapters,
            n_piece: Callable[[], int],
        ) -> Reading:
            may_go.wait(10)
            return super().embed(prompts, pooling, adapters, n_piece)

    layout = Layout(n_slots=1, n_ctx_seq=50, n_cells=50, n_batch=50, n_outputs=1)
    engine = ThreadedEngine(lambda unwanted: Slow(layout), max_waiting=1, warn=lambda message: None)
    assert engine.wait_until_settled(10) is EngineStatus.READY
    found = list[Any]()
    threads = [threading.Thread(target=lambda: found.append(engine.embed(((1, 2),)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while engine.n_pending < 2:
        threads[0].join(0.01)
    with pytest.raises(QueueFullError):
        engine.embed(((1,),))
    may_go.set()
    for thread in threads:
        thread.join()
    after = engine.embed(((1,),))
    engine.close()

    assert [list(each[0][0]) for each in found] == [[2.0]] * 2
    assert list(after[0][0]) == [1.0]
