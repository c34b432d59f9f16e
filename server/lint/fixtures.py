"""The conversations that a template is tried with. A table, no logic."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixture:
    """A conversation. `needles` are words that its text has to show; `refused` and `lost` say what it means if the
    template refuses it or fails on it, and if it leaves one of them out (empty: nothing worth a word).
    """

    name: str
    messages: tuple[Json, ...]
    needles: tuple[str, ...]
    refused: str
    lost: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    knows: str = ""  # rendered only for templates that use this name


def _say(role: str, content: Any, **more: Any) -> Json:
    return {"role": role, "content": content, **more}


def _call(arguments: Any) -> Json:
    call = {"id": "call00000", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return _say("assistant", "", tool_calls=[call])


QUESTION: Final = _say("user", "What grows in winter?")
WEATHER: Final = _say("user", "Is it warm in Lisbon?")
TOOL: Final[Json] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Today's weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "where"}},
            "required": ["city"],
        },
    },
}
TOOLS: Final = {"tools": [TOOL]}
ANSWER: Final = "Leeks and kale."
RESULT: Final = _say("tool", "sunny spells", tool_call_id="call00000", name="get_weather")

# fmt: off
FIXTURES: Final = (
    Fixture(name="user", messages=(QUESTION,), needles=("What grows in winter?",),
            refused="refuses even one user message", lost="loses the user's message when it is a string"),
    Fixture(name="system, user", messages=(_say("system", "Answer briefly."), QUESTION),
            needles=("Answer briefly.", "What grows"),
            refused="refuses the system role", lost="ignores the system message"),
    Fixture(name="developer, user", messages=(_say("developer", "Answer briefly."), QUESTION),
            needles=("Answer briefly.", "What grows"),
            refused="refuses the developer role", lost="ignores the developer's message"),
    Fixture(name="typed content", messages=(_say("user", [{"type": "text", "text": "What grows in winter?"}]),),
            needles=("What grows in winter?",),
            refused="refuses content that is a list of parts", lost="loses the text of typed content silently"),
    Fixture(name="tools", messages=(WEATHER,), needles=("Lisbon", "get_weather"), variables=TOOLS,
            refused="refuses tools", lost="doesn't show tools"),
    Fixture(name="call, object", messages=(WEATHER, _call({"city": "Lisbon-Sul"}), RESULT),
            needles=("Lisbon-Sul",), variables=TOOLS,
            refused="refuses a call whose arguments are an object",
            lost="leaves out a call whose arguments are an object"),
    Fixture(name="call, string", messages=(WEATHER, _call('{"city": "Lisbon-Sul"}'), RESULT),
            needles=("Lisbon-Sul",), variables=TOOLS,
            refused="refuses a call whose arguments are a string, as OpenAI's API has them",
            lost="leaves out a call whose arguments are a string, as OpenAI's API has them"),
    Fixture(name="tool result", messages=(WEATHER, _call({"city": "Lisbon-Sul"}), RESULT),
            needles=("sunny spells",), variables=TOOLS,
            refused="refuses the tool role", lost="leaves out a tool's result"),
    Fixture(name="several turns", messages=(QUESTION, _say("assistant", ANSWER), _say("user", "And in spring?")),
            needles=("What grows", ANSWER, "And in spring?"),
            refused="refuses several turns", lost="leaves out a turn of several"),
    Fixture(name="user, user", messages=(QUESTION, _say("user", "And in spring?")),
            needles=("What grows", "And in spring?"),
            refused="wants user and assistant to alternate", lost="leaves out one of two user messages in a row"),
    Fixture(name="prefill", messages=(QUESTION, _say("assistant", "Leeks and")), needles=("What grows", "Leeks and"),
            refused="refuses a conversation that ends with the assistant's words",
            lost="leaves out the assistant's last words"),
    Fixture(name="no prompt", messages=(QUESTION,), needles=("What grows",),
            variables={"add_generation_prompt": False}, refused="needs add_generation_prompt", lost=""),
    Fixture(name="thinking", messages=(QUESTION,), needles=("What grows",), variables={"enable_thinking": True},
            refused="fails with enable_thinking", lost="", knows="enable_thinking"),
    Fixture(name="no thinking", messages=(QUESTION,), needles=("What grows",), variables={"enable_thinking": False},
            refused="fails without enable_thinking", lost="", knows="enable_thinking"),
)
# fmt: on
