"""Answers that the worker writes itself: every byte once, in order, however slow the client and however it ends."""

import json
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.counters import Counters
from server.engine.events import Event, Failed, Finished, FinishReason, Piece, Progress, Written
from server.engine.forms import BLANKS, Blank, Filling, Form
from server.engine.frames import (
    Began,
    Broke,
    Cancel,
    Drafted,
    Ended,
    Evaluated,
    Preempted,
    Refused,
    Report,
    Said,
    Step,
    Wrote,
)
from server.engine.generation import Generation
from server.engine.readers.readers import OFFERS, Readers
from server.engine.request import GenerationRequest
from server.engine.ways import Aside, Offer, Passage, Way, chunk
from server.engine.worker.direct import Direct

BEFORE, BEHIND = b'data: {"text":', b"}\n\n"
PLAIN = Form((BEFORE, BEHIND))
COUNTED = Form((b'data: {"n":', b',"text":', b',"tokens":', b',"n_tokens":', BEHIND), ("n_events", *BLANKS[:3]))
PING = b": ping\n\n"


@dataclass
class Wire:
    """What a client gets, in order, from both processes. `takes`: bytes that each send of the worker may hand over."""

    takes: list[int]
    data: bytes = b""
    is_broken: bool = False
    is_closed: bool = True

    def send(self, data: bytes, flags: int, /) -> int:
        assert not self.is_closed
        if self.is_broken:
            raise BrokenPipeError
        n = self.takes.pop(0) if self.takes else len(data)
        if not n:
            raise BlockingIOError
        self.data += data[:n]
        return min(n, len(data))

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


@dataclass
class Pair:
    """The readers and the worker's part, joined by hand: `late` says which offers come after the next token."""

    request: GenerationRequest
    wire: Wire
    late: list[bool] = field(default_factory=list)
    chunked: bool = True
    form: Form = PLAIN
    events: list[Event] = field(default_factory=list)
    cancelled: list[Cancel] = field(default_factory=list)
    offers: list[Offer | Aside] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.direct, self.readers = Direct(), Readers(self.cancelled.append)
        self.readers.hand_on = self._hand_on
        self.generation = Generation(self.request)
        self.generation.attach(self._sink)
        self.readers.add(7, self.generation)
        self.waiting: list[Offer | Aside] = []
        self.refused: list[Refused] = []  # on their way, behind the token that they came too late for
        self.returned: list[Wrote] = []
        self.n_direct = self.n_events = self.n_tokens = 0
        self.told = ""

    def _hand_on(self, message: Offer | Aside, fileno: int) -> bool:
        self.offers.append(message)
        if self.waiting or (isinstance(message, Offer) and self.late and self.late.pop(0)):
            self.waiting.append(message)  # whatever follows is behind it
        else:
            self._arrive(message)
        return True

    def _arrive(self, message: Offer | Aside) -> None:
        if isinstance(message, Aside):
            back = self.direct.send(message.id, message.data)
            if back is not None:
                self.returned.append(back)
            return
        self.wire.is_closed = False
        refused = self.direct.accept(message, self.wire)
        if refused is not None:
            self.refused.append(refused)

    def _sink(self, event: Event) -> bool:
        self.events.append(event)
        if isinstance(event, Piece):
            tokens = [each.token for each in event.tokens]
            data = Filling(self._form()).next(event.text, tokens)
            self.n_events, self.n_tokens = self.n_events + 1, self.n_tokens + len(tokens)
            self.wire.data += chunk(data) if self.chunked else data
            if self.generation.n_pieces[0] == 1:
                self.generation.way = Way(self._form, self.chunked, lambda: os.open(os.devnull, os.O_RDONLY))
        elif isinstance(event, Written):
            assert self.generation.send is not None or not event.times_s  # until it is written, nobody else writes
            self.n_direct += len(event.times_s)
            self.n_events, self.n_tokens = self.n_events + len(event.times_s), event.n_tokens
            self.told += event.text
            self.wire.data += event.unsent
        return True

    def _form(self) -> Form:
        return self.form._replace(n_before=self.n_tokens if self.form.blanks[0] == "n_tokens" else self.n_events)

    def step(self, *reports: Report, counters: Counters | None = None) -> None:
        """What a step of the loop brought, through the worker's part and then the readers'."""
        left = self.direct.take(Step(1.0, list(reports), counters))
        waiting, self.waiting = self.waiting, []
        for message in waiting:
            self._arrive(message)
        if left is not None:
            self.readers.take(left)
        while self.refused:
            self.readers.take(Step(1.0, [self.refused.pop()], None))
        while self.returned:
            self.readers.take(Step(1.0, [self.returned.pop(0)], None))
        assert self.generation.send is not None or not self.direct._leads

    def ping(self) -> None:
        """A comment, as the HTTP side sends it in silence."""
        data = chunk(PING) if self.chunked else PING
        if self.generation.send is not None:
            self.generation.send(data)
        else:
            self.wire.data += data

    @property
    def texts(self) -> list[str]:
        """What the client has read of texts: fails on anything that is no whole event in a whole chunk."""
        data = unchunked(self.wire.data) if self.chunked else self.wire.data
        events = data.split(b"\n\n")
        assert events.pop() == b""
        return [json.loads(event[len(BEFORE) : -1]) for event in events if event + b"\n\n" != PING]


def test_forms() -> None:
    """Blanks are filled as JSON has them, and what is counted goes on from event to event."""
    filling = Filling(Form((b"[", b",", b",", b"]"), ("n_events", "text", "tokens"), 3))
    assert [filling.next('é"', [5, 6]), filling.next("")] == [rb'[3,"\u00e9\"",[5,6]]', b'[4,"",[]]']
    filling = Filling(Form((b"[", b",", b"]"), ("tokens", "n_tokens"), 3))
    assert [filling.next("a", [5, 6]), filling.next("", [7])] == [b"[[5,6],5]", b"[[7],6]"]
    assert Filling(PLAIN).next("\n") == PLAIN.plain("\n") == BEFORE + rb'"\n"' + BEHIND


def unchunked(data: bytes) -> bytes:
    """The content of whole chunks."""
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        n = int(size, 16)
        content, end, data = content + data[:n], data[n : n + 2], data[n + 2 :]
        assert end == b"\r\n"
    return content


def said(piece: bytes, reason: FinishReason | None = None) -> Said:
    return Said(7, 0, 1, piece, None, False, reason)


def shown(tokens: list[bytes], stop: tuple[str, ...]) -> tuple[str, str, int]:
    """The text, the stop string and the number of tokens without any of this."""
    readers = Readers(lambda cancel: None)
    generation = Generation(GenerationRequest(prompt=(1,), stop=stop))
    readers.add(7, generation)
    for at, token in enumerate(tokens):
        readers.take(Step(1.0, [said(token, "length" if at == len(tokens) - 1 else None)], None))
    text = ""
    while not isinstance(event := generation.next_event(0), Finished):
        assert isinstance(event, Piece)
        text += event.text
    return text, event.stop, event.usage.n_generated


TEXT = st.lists(st.sampled_from(("ab", "aba", "b\n", "é🙂", '"', "\\", "c", "🙂", "\u2028")), max_size=12).map("".join)


@given(
    data=st.data(), text=TEXT, chunked=st.booleans(), late=st.lists(st.booleans(), max_size=10),
    stop=st.sampled_from([(), ("ab",), ("aba", "b\n"), ("é🙂",), ("\\\\",)]),
    takes=st.lists(st.integers(0, 80), max_size=4),
)  # fmt: skip
def test_every_byte_once(
    data: st.DataObject, text: str, chunked: bool, late: list[bool], stop: tuple[str, ...], takes: list[int]
) -> None:
    """Tokens that cut characters anywhere, stop strings over their borders, sends of any size, late offers, pings."""
    raw = b"c" + text.encode() + data.draw(st.sampled_from([b"", b"\xff", b"\xf0\x9f"]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw)), max_size=12)) - {len(raw)})
    tokens = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    pair = Pair(GenerationRequest(prompt=(1,), stop=stop), Wire([200, 200, *takes]), late, chunked)
    pair.step(Began(7, 0, ""))
    for at, token in enumerate(tokens):
        pair.step(
            said(token, "length" if at == len(tokens) - 1 else None),
            counters=Counters() if data.draw(st.booleans()) else None,
        )
        if data.draw(st.booleans()):
            pair.ping()
        if pair.cancelled:
            pair.step(Ended(7, 0, "cancelled"))
            break

    expected, stopped, n = shown(tokens, stop)
    last = pair.events[-1]
    assert isinstance(last, Finished)
    assert "".join(pair.texts) == expected
    assert (last.stop, last.usage.n_generated) == (stopped, n)
    assert pair.generation.n_pieces[0] == len(pair.texts)
    assert pair.wire.is_closed
    assert not pair.direct._leads
    assert not pair.direct._n_said


@given(
    data=st.data(), text=TEXT, late=st.lists(st.booleans(), max_size=10), with_tokens=st.booleans(),
    stop=st.sampled_from([(), ("ab",), ("aba", "b\n"), ("é🙂",)]), takes=st.lists(st.integers(0, 80), max_size=4),
)  # fmt: skip
def test_what_is_counted(
    data: st.DataObject, text: str, late: list[bool], with_tokens: bool, stop: tuple[str, ...], takes: list[int]
) -> None:
    """Events with their number and their tokens are those of the readers alone, and these know what was said."""
    raw = b"c" + text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw)), max_size=12)) - {len(raw)})
    tokens = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    blanks: tuple[Blank, ...] = ("n_tokens", "text", "tokens") if with_tokens else ("n_events", "text")
    form = Form((b"data: [", *[b","] * (len(blanks) - 1), b"]\n\n"), blanks)
    asked = GenerationRequest(prompt=(1,), stop=stop, return_tokens=with_tokens)
    found = []
    for pair in (
        Pair(asked, Wire([200, 200, *takes]), late, False, form),
        Pair(asked, Wire([]), [True] * 99, False, form),  # the worker never has it
    ):
        for at, token in enumerate(tokens):
            counters = Counters() if data.draw(st.booleans()) else None
            reason: FinishReason | None = "length" if at == len(tokens) - 1 else None
            pair.step(Said(7, 0, at, token, None, False, reason), counters=counters)
            if pair.cancelled:
                pair.step(Ended(7, 0, "cancelled"))
                break
        shown = "".join(event.text for event in pair.events if isinstance(event, Piece))
        found.append((pair.wire.data, pair.n_events, pair.n_tokens if with_tokens else 0, len(shown + pair.told)))
        assert isinstance(pair.events[-1], Finished)

    assert found[0] == found[1]


@pytest.mark.parametrize("late", [[], 99 * [True]])
def test_tokens_without_their_text(late: list[bool]) -> None:
    """Of an answer that comes back while a stop string might come, they are shown with the text that was held."""
    form = Form((b"data: [", b",", b",", b"]\n\n"), ("n_tokens", "text", "tokens"))
    asked = GenerationRequest(prompt=(1,), stop=("bx",), return_tokens=True)
    pair = Pair(asked, Wire([]), late, False, form)
    for at, piece in enumerate((b"c", b"d", b"b", b"c")):
        pair.step(Said(7, 0, at, piece, None, False, "length" if at == 3 else None))

    assert pair.wire.data == b'data: [1,"c",[0]]\n\ndata: [2,"d",[1]]\n\ndata: [4,"bc",[2,3]]\n\n'
    assert pair.n_direct == (0 if late else 1)


def test_a_comment_that_comes_back_counts_nothing() -> None:
    """A token whose text is held is not counted as shown by it: it will be with its text."""
    form = Form((b"data: [", b",", b",", b"]\n\n"), ("n_tokens", "text", "tokens"))
    asked = GenerationRequest(prompt=(1,), stop=("bx",), return_tokens=True)
    pair = Pair(asked, Wire([]), 99 * [True], False, form)
    for at, piece in enumerate((b"c", b"b", b"c")):
        pair.step(Said(7, 0, at, piece, None, False, "length" if at == 2 else None))
        pair.ping()

    assert pair.wire.data.replace(PING, b"") == b'data: [1,"c",[0]]\n\ndata: [3,"bc",[1,2]]\n\n'


def led(**fields: Any) -> Pair:
    """An answer that the worker writes."""
    pair = Pair(GenerationRequest(prompt=(1,)), Wire([], **fields))
    pair.step(said(b"a"))
    pair.step(said(b"b"))
    assert not pair.wire.is_closed
    assert pair.texts == ["a", "b"]
    return pair


def test_tokens_pass_by_the_readers() -> None:
    """Nothing goes through the pipe but what else there is, and counts with the counters."""
    pair = led()
    assert pair.direct.take(Step(2.0, [said(b"c")], None)) is None
    left = pair.direct.take(Step(3.0, [Drafted(7, 0, 1, 1), said(b"d")], Counters()))

    assert left is not None
    assert left.reports == [Drafted(7, 0, 1, 1), Wrote(7, 3, (1.0, 2.0, 3.0))]
    assert pair.texts == ["a", "b", "c", "d"]


def test_progress_behind_a_preemption() -> None:
    """What the HTTP side writes of it comes behind what the client has not taken yet, and nobody else writes then."""
    pair = led()
    pair.wire.takes = [3]
    pair.ping()
    pair.step(Preempted(7, 0))
    pair.step(Evaluated(7, 1))

    assert [type(event) for event in pair.events[-2:]] == [Written, Progress]
    assert pair.wire.is_closed
    pair.step(said(b"c", "length"))
    assert pair.texts == ["a", "b", "c"]


@pytest.mark.parametrize("how", [Broke(7, "it broke", "engine"), Ended(7, 0, "cancelled")])
def test_an_end_without_a_token(how: Report) -> None:
    """The HTTP side has the answer before it learns of its end."""
    pair = led()
    pair.step(how)

    assert isinstance(pair.events[-1], Failed | Finished)
    assert isinstance(pair.events[-2], Written)
    assert pair.wire.is_closed


def test_a_worker_that_dies() -> None:
    """Its readers' error comes behind whole chunks."""
    pair = led()
    pair.readers.fail_all("SIGKILL", "worker")

    assert isinstance(pair.events[-1], Failed)
    assert pair.texts == ["a", "b"]


def test_a_client_that_has_gone() -> None:
    """The answer is the HTTP side's again, which will find out."""
    pair = led()
    pair.wire.is_broken = True
    pair.step(said(b"c"))

    assert pair.texts == ["a", "b", "c"]
    assert pair.wire.is_closed
    assert pair.generation.send is None
    n_offers = len(pair.offers)
    pair.step(said(b"d"))
    assert len(pair.offers) == n_offers


def test_offers_end() -> None:
    """Where the worker is always ahead, no more is tried after a while."""
    pair = Pair(GenerationRequest(prompt=(1,)), Wire([]), late=[True] * 99)
    for _ in range(OFFERS + 5):
        pair.step(said(b"a"))

    assert len(pair.offers) == OFFERS
    assert pair.generation.send is None


def test_a_ping_between_two_ways() -> None:
    """What the worker may not send, since the answer was the HTTP side's again, comes back and is sent."""
    pair = Pair(GenerationRequest(prompt=(1,)), Wire([]), late=[True])
    pair.step(said(b"a"))
    pair.readers._readers[7].generation.send = lambda data: pair._arrive(Aside(7, data))  # the refusal is on its way
    pair.ping()
    pair.readers._readers[7].generation.send = None
    pair.step(said(b"b"))

    assert pair.wire.data.count(PING) == 1
    assert pair.texts == ["a", "b"]


def test_a_refusal_of_an_offer_before_the_last() -> None:
    """It comes behind the token that made the next offer, which the worker took: what else is said goes there."""
    pair = Pair(GenerationRequest(prompt=(1,)), Wire([]), late=[True])
    for piece in (b"a", b"b", b"c"):
        pair.step(said(piece))
    pair.wire.takes = [3]
    pair.ping()
    pair.ping()
    pair.step(said(b"d"))

    assert [offer.n_tokens for offer in pair.offers if isinstance(offer, Offer)] == [1, 2]
    assert pair.texts == ["a", "b", "c", "d"]
    assert pair.wire.data.count(PING) == 2


@pytest.mark.parametrize("fields", [{"n": 2}, {"return_tokens": True}, {"n_logprobs": 0}, {"n_indent": 2}])
def test_who_gets_more_than_text(fields: dict[str, int]) -> None:
    """Answers of which more is shown stay with the readers."""
    pair = Pair(GenerationRequest(prompt=(1,), **fields), Wire([]))  # type: ignore[arg-type]
    pair.step(said(b"a"))
    pair.step(said(b"b"))

    assert not pair.offers


def test_who_writes_himself() -> None:
    """When a sink takes no more, its reader's thread goes on writing, and nobody else."""
    pair = Pair(GenerationRequest(prompt=(1,)), Wire([]))
    takes = iter((True, False))
    whole, pair.generation._sink = pair._sink, lambda event: whole(event) and next(takes)
    pair.late = [True]
    pair.step(said(b"a"))
    pair.step(said(b"b"))

    assert len(pair.offers) == 1
    assert pair.generation.way is None


def test_an_offer_for_what_is_over() -> None:
    """The socket is let go of at once: a connection ends when nobody has it any more."""
    direct, wire = Direct(), Wire([], is_closed=False)

    assert direct.accept(Offer(7, 1, PLAIN, True, ()), wire) == Refused(7, 1)
    assert wire.is_closed


def test_passage() -> None:
    """Messages come whole, with their socket; too large a one, and one to nobody, is not sent."""
    found = Passage.pair()
    if found is None:
        pytest.skip("sockets cannot be handed on here")
    ours, end = found
    theirs = Passage(end)
    end.setblocking(True)
    offer = Offer(7, 3, COUNTED, True, ("a", "é"))

    assert ours.send(offer, end.fileno())
    assert ours.send(Aside(7, PING))
    message, fileno = theirs.receive()
    assert (message, fileno > 2) == (offer, True)
    assert theirs.receive() == (Aside(7, PING), -1)
    assert not ours.send(offer._replace(stop=("a" * 100_000,)), end.fileno())
    theirs.close()
    os.close(fileno)
    assert not ours.send(offer)
    ours.close()
