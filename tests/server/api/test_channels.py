"""Answers in messages on channels: what is thought, said and called, however they are cut."""

import random
from dataclasses import replace
from typing import Any, Final

import pytest

from server.api.conversation.call_grammar import calls_gbnf
from server.api.conversation.channels import MARKS, Channels
from server.api.conversation.style import CHANNELS
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Piece
from tests.server.api.test_gbnf import follows
from tests.server.api.test_gbnf import vocab as vocab  # a fixture
from tests.server.fake_engine import INFO, FakeEngine, finished

ANALYSIS: Final = "<|channel|>analysis<|message|>hm < |<|end|>"
START: Final = "<|start|>assistant"
FINAL: Final = "<|channel|>final<|message|>Leeks."
ARGUMENTS: Final = '{"city": "<|x|>"}'
CALLS: Final = (
    f" to=functions.weather<|channel|>commentary json<|message|>{ARGUMENTS}",
    f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{ARGUMENTS}",
    f"<|channel|>analysis to=functions.weather<|message|>{ARGUMENTS}",
)
TEMPLATE: Final = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ m.content }}<|end|>{% endfor %}{{ tools | tojson if tools }}{% if add_generation_prompt %}<|start|>assistant"
    "{% endif %}"
)


def read(text: str, seed: int, **how: Any) -> tuple[str, str, list[tuple[str, str]]]:
    """Thoughts, words and calls; the deltas add up to them."""
    reader = Channels(**{"stage": "undecided", "keeps_thoughts": False, "reads_calls": True, **how})
    cuts, deltas, at = random.Random(seed), list[dict[str, Any]](), 0
    while at < len(text):
        n = cuts.randint(1, 7) if seed else len(text)
        deltas += reader.feed(text[at : at + n])
        at += n
    deltas += reader.close()
    thought, said = ("".join(delta.get(key, "") for delta in deltas) for key in ("reasoning_content", "content"))
    told = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    assert (thought, said) == (reader.reasoning, reader.content)
    assert "".join(each["arguments"] for each in told) == "".join(c["function"]["arguments"] for c in reader.calls)
    return thought, said, [(call["function"]["name"], call["function"]["arguments"]) for call in reader.calls]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("text", "found"),
    [
        (FINAL, ("", "Leeks.", [])),
        (ANALYSIS + START + FINAL, ("hm < |", "Leeks.", [])),
        (ANALYSIS + START + ANALYSIS + START + FINAL, ("hm < |hm < |", "Leeks.", [])),
        *((front + call, (thought, "", [("weather", ARGUMENTS)]))
          for call in CALLS for front, thought in (("", ""), (ANALYSIS + START, "hm < |"))),
        (
            f"{ANALYSIS}{START}<|channel|>commentary<|message|>Let me see.<|end|>{START}{CALLS[1]}",
            ("hm < |", "Let me see.", [("weather", ARGUMENTS)]),
        ),
        ("<|channel|>analysis<|message|>open <|en", ("open <|en", "", [])),
        (ANALYSIS + START + CALLS[1][:-6], ("hm < |", "", [("weather", ARGUMENTS[:-6])])),
        (ANALYSIS + START + CALLS[1][:40], ("hm < |", "", [])),
        (f"<|channel|>commentary to=assistant{ANALYSIS}{START}{FINAL}", ("hm < |", "Leeks.", [])),
        (f"{ANALYSIS}{START} to=browser.search<|channel|>commentary<|message|>x<|end|>", ("hm < |", "", [])),
        ("Leeks <without> headers", ("", "Leeks <without> headers", [])),
    ],
)  # fmt: skip
def test_messages(text: str, found: tuple[str, str, list[tuple[str, str]]], seed: int) -> None:
    """Headers tell thoughts, words and calls apart; what is said to other programs is nobody's."""
    assert read(text, seed) == found


@pytest.mark.parametrize("seed", range(3))
def test_how_channels_are_read(seed: int) -> None:
    """Answers that were begun go on within; thoughts stay in the content where they are to; calls are passed."""
    assert read("on<|end|>" + START + FINAL, seed, stage="thinking") == ("on", "Leeks.", [])
    assert read("on", seed, stage="saying") == ("", "on", [])
    assert read(ANALYSIS + START + FINAL, seed, keeps_thoughts=True) == ("", ANALYSIS + "Leeks.", [])
    assert read(ANALYSIS + START + CALLS[0], seed, reads_calls=False) == ("hm < |", "", [])


def test_grammar_of_channels(vocab: object) -> None:
    """A forced call is a message to a function, in any header that there is for it; others begin at the function."""
    function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    forced, free = (calls_gbnf(CHANNELS, [function], parallel=False, forced=forced) for forced in (True, False))
    for call in CALLS:
        assert follows(vocab, forced, call)
        assert follows(vocab, forced, START + call)
        assert follows(vocab, free, call[call.index("to=") :])
        assert not follows(vocab, forced, call.replace("weather", "other"))
    assert not follows(vocab, forced, FINAL)


def test_channels_in_a_conversation() -> None:
    """The answer's parts come in their places, and headers are shown to who reads them."""
    fake = FakeEngine(info=replace(INFO, chat_template=TEMPLATE))
    fake.events = (*(Piece(text=c) for c in ANALYSIS + START + CALLS[1]), finished())
    client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
    tools = [{"type": "function", "function": {"name": "weather"}}]
    body = {"messages": [{"role": "user", "content": "q"}], "tools": tools}
    choice = client.post("/v1/chat/completions", json=body).get_json()["choices"][0]

    assert choice["message"]["reasoning_content"] == "hm < |"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": ARGUMENTS}
    assert choice["finish_reason"] == "tool_calls"
    assert set(map(ord, "".join(MARKS))) <= fake.requests[-1].shown
