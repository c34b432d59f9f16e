"""Forms of events: filled in they are what the endpoint itself would have shown, and it goes on from there."""

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from server.api.anthropic_answer import MessageAnswer
from server.api.chat_answer import ChatAnswer
from server.api.choices import Choices, Kind
from server.api.completions import Completion
from server.api.conversation.reading import Reading, Stage
from server.api.conversation.style import HERMES, Style
from server.api.native_completion import NativeAnswers
from server.api.options import read_options
from server.api.prompts import Prompt
from server.api.replies import MARKS, Shape, event_of
from server.api.responses_answer import ResponseAnswer
from server.api.schema import Fields
from server.engine.events import Piece, Started, TokenInfo, Written
from server.engine.forms import Filling
from tests.server.fake_engine import FakeEngine, finished

KIND = Kind(id_prefix="x-", whole="whole", chunk="chunk")
HARD = ("a", '"', "\\", "\n", "\0", "é", "\u2028", "🙂", "</s>", "text", MARKS["text"], "")


def reading(stage: Stage = "saying", style: Style | None = None) -> Reading:
    return Reading(style=style, stage=stage)


def native(n_probs: int | None = None, **fields: Any) -> NativeAnswers:
    options = read_options(Fields({"stream": True, **fields}), FakeEngine())
    return NativeAnswers("fake", [Prompt((1, 2), "ab")], options, n_probs=n_probs, wanted=())


SHAPES: dict[str, Callable[[], Any]] = {
    "completions": lambda: Choices(KIND, "fake", [Completion(0, echoed=None, logprobs=False)], n=1),
    "chat": lambda: Choices(KIND, "fake", [ChatAnswer(0, reading(), logprobs=False)], n=1),
    "messages": lambda: MessageAnswer("fake", reading(), n_prompt=3, stop=()),
    "responses": lambda: ResponseAnswer("fake", Fields({}), reading(), logprobs=False, n_thought=len),
    "completion": native,
}


@pytest.fixture
def same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=1))
    monkeypatch.setattr(time, "time", lambda: 1.0)


def piece(text: str, number: int) -> Piece:
    return Piece(text=text, tokens=(TokenInfo(token=number, piece=b""),))


def shown(shape: Shape, event: Any) -> bytes:
    return b"".join(event_of(each, named=shape.named) for each in shape.take(0, event))


@pytest.mark.usefixtures("same_ids")
@pytest.mark.parametrize("name", SHAPES)
def test_filled_in(name: str) -> None:
    """Every text, and the events behind all of them, by number, count and content."""
    ours, theirs = SHAPES[name](), SHAPES[name]()
    for shape in (ours, theirs):
        shown(shape, Started(n_cached=1))
        shown(shape, piece("first", 0))
    form = ours.form(0, 0)
    filling = Filling(form)
    texts = HARD if name == "completion" else HARD[:-1]  # elsewhere a piece has a text
    for at, text in enumerate(texts, 1):
        assert filling.next(text, [at]) == shown(theirs, piece(text, at))
    times_s = tuple(map(float, range(len(texts))))
    said = "" if form.is_plain else "".join(texts)
    ours.take(0, Written(times_s=times_s, text=said, n_tokens=1 + len(texts)))

    for event in (piece("more", 99), finished()):
        assert shown(ours, event) == shown(theirs, event)
    assert ours.closing() == theirs.closing()


@pytest.mark.parametrize(
    "shape",
    [
        lambda: Choices(KIND, "fake", [Completion(0, echoed=None, logprobs=True)], n=1),
        lambda: Choices(KIND, "fake", [Completion(0, echoed=None, logprobs=False)], n=1, timed=[3]),
        lambda: Choices(KIND, "fake", [ChatAnswer(0, reading("thinking"), logprobs=False)], n=1),
        lambda: MessageAnswer("fake", reading("thinking"), n_prompt=3, stop=()),
        lambda: ResponseAnswer("fake", Fields({}), reading("thinking"), logprobs=False, n_thought=len),
        lambda: Choices(KIND, "fake", [ChatAnswer(0, reading(style=HERMES), logprobs=False)], n=1),
        lambda: MessageAnswer("fake", reading(style=HERMES), n_prompt=3, stop=()),
        lambda: ResponseAnswer("fake", Fields({}), reading(style=HERMES), logprobs=False, n_thought=len),
        lambda: ResponseAnswer("fake", Fields({}), reading(), logprobs=True, n_thought=len),
        lambda: native(n_probs=1),
        lambda: native(timings_per_token=True),
    ],
)
def test_what_has_no_form(shape: Callable[[], Any]) -> None:
    """Scores, timings, and what may yet be anything but words."""
    found = shape()
    found.take(0, Started())
    found.take(0, piece("first", 0))

    assert found.form(0, 0) is None
