"""Does a conversation become the text that llama-server makes of it? Every template of a folder, many conversations.

`python -m scripts.check_templates LLAMA_SERVER FOLDER [--only NAME] [--fixtures WORD] [--show]`

`LLAMA_SERVER` is built of the sources of the pinned llama-cpp-python, `FOLDER` holds `*.jinja`, such as their
`models/templates`. Each is served once with the embedded model, and asked by `/apply-template`. Exit code 1 if a text
differs, where both make one; who refuses what the other takes is told, too.
"""

import argparse
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.running.program import existing_file, existing_folder, run_program
from bench.serve_compare.servers import running
from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from refengine.text.open import open_tokenizer
from server.api.conversation.conversations import Conversations
from server.api.errors import ApiError
from server.api.schema import Fields
from server.engine.model_info import ModelInfo
from server.lint.command import info_of
from server.lint.rendering import conversations_of
from server.template.chat_template import ChatTemplate, ChatTemplateError

Json = dict[str, Any]
TIMEOUT_S: Final = 30


def say(role: str, content: Any, **more: Any) -> Json:
    """A message."""
    return {"role": role, "content": content, **more}


def text(*parts: str) -> list[Json]:
    """Typed content."""
    return [{"type": "text", "text": part} for part in parts]


def call(name: str, arguments: Any, call_id: str = "call00001") -> Json:
    """A call of a tool."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str, **more: Any) -> Json:
    """A tool with one argument."""
    city = {"city": {"type": "string", "description": "where"}}
    parameters = {"type": "object", "properties": city, "required": ["city"]}
    function = {"name": name, "description": f"What {name} says", "parameters": parameters, **more}
    return {"type": "function", "function": function}


U, U2 = say("user", "What grows in winter?"), say("user", "And in spring?")
A, S, D = say("assistant", "Leeks and kale."), say("system", "Answer briefly."), say("developer", "Answer briefly.")
TOOLS: Final = [tool("weather"), tool("harvest")]
CALL = say("assistant", "", tool_calls=[call("weather", '{"city": "Lisbon"}')])
RESULT = say("tool", "sunny spells", tool_call_id="call00001", name="weather")
TWO = say("assistant", "", tool_calls=[
    call("weather", '{"city": "Lisbon"}'), call("harvest", '{"city": "Porto"}', "call00002")
])  # fmt: skip
CALL2 = say("assistant", "", tool_calls=[call("harvest", '{"city": "Porto"}', "call00002")])
RESULT2 = say("tool", '{"crop": "figs"}', tool_call_id="call00002", name="harvest")
THOUGHT = "Cold suits leaves."
BEGUN = say("assistant", "Leeks and")


def without(message: Json, key: str) -> Json:
    """The message without a key."""
    return {name: value for name, value in message.items() if name != key}


def body(*messages: Json, tools: bool = False, **more: Any) -> Json:
    """A request."""
    return {"messages": list(messages), **({"tools": TOOLS} if tools else {}), **more}


FIXTURES: Final[dict[str, Json]] = {
    "user": body(U),
    "user, no prompt": body(U, add_generation_prompt=False),
    "user, named": body({**U, "name": "Ana"}),
    "user, typed": body(say("user", text("What grows in winter?"))),
    "user, typed parts": body(say("user", text("What grows", "in winter?"))),
    "user, empty": body(say("user", "")),
    "user, blanks": body(say("user", "  What grows?\n")),
    "system": body(S, U),
    "system, typed parts": body(say("system", text("Answer", "briefly.")), U),
    "system alone": body(S),
    "system, two": body(S, say("system", "In rhyme."), U),
    "system, late": body(U, S),
    "developer": body(D, U),
    "turns": body(U, A, U2),
    "turns, typed parts": body(U, say("assistant", text("Leeks", "and kale.")), U2),
    "turns, system": body(S, U, A, U2),
    "user, user": body(U, U2),
    "assistant first": body(A, U),
    "thinking": body(U, chat_template_kwargs={"enable_thinking": True}),
    "no thinking": body(U, chat_template_kwargs={"enable_thinking": False}),
    "effort": body(U, reasoning_effort="low"),
    "effort, none": body(U, reasoning_effort="none"),
    "tools": body(U, tools=True),
    "tools, system": body(S, U, tools=True),
    "tools, developer": body(D, U, tools=True),
    "tools, bare": body(U) | {"tools": [{"type": "function", "function": {"name": "weather"}}]},
    "tools, strict": body(U) | {"tools": [tool("weather", strict=True)]},
    "tools, turns": body(U, A, U2, tools=True),
    "call": body(U, CALL, RESULT, tools=True),
    "call, no tools": body(U, CALL, RESULT),
    "call, system": body(S, U, CALL, RESULT, tools=True),
    "call, object": body(
        U, say("assistant", "", tool_calls=[call("weather", {"city": "Lisbon", "days": [1, 2.5, None, True]})]), RESULT,
        tools=True,
    ),
    "call, no arguments": body(U, say("assistant", "", tool_calls=[call("weather", "{}")]), RESULT, tools=True),
    "call, null content": body(U, {**CALL, "content": None}, RESULT, tools=True),
    "call, no content": body(U, without(CALL, "content"), RESULT, tools=True),
    "call, content": body(U, {**CALL, "content": "Let me see."}, RESULT, tools=True),
    "call, typed result": body(U, CALL, {**RESULT, "content": text("sunny", "spells")}, tools=True),
    "call, unnamed result": body(U, CALL, without(RESULT, "name"), tools=True),
    "call, JSON result": body(U, CALL, {**RESULT, "content": '{"sky": "clear", "degrees": 21}'}, tools=True),
    "call, answer": body(U, CALL, RESULT, A, tools=True),
    "call, turn": body(U, CALL, RESULT, A, U2, tools=True),
    "call, call": body(U, CALL, RESULT, CALL2, RESULT2, tools=True),
    "calls, two": body(U, TWO, RESULT, RESULT2, tools=True),
    "calls, two, turn": body(U, TWO, RESULT, RESULT2, A, U2, tools=True),
    "thoughts": body(U, {**A, "reasoning_content": THOUGHT}, U2),
    "thoughts, kept not": body(
        U, {**A, "reasoning_content": THOUGHT}, U2, chat_template_kwargs={"preserve_reasoning": False}
    ),
    "thoughts, typed": body(U, {**A, "content": text("Leeks", "and kale."), "reasoning_content": THOUGHT}, U2),
    "thoughts, call": body(U, {**CALL, "reasoning_content": THOUGHT}, RESULT, tools=True),
    "thoughts, call, content": body(
        U, {**CALL, "content": "Let me see.", "reasoning_content": THOUGHT}, RESULT, tools=True
    ),
    "thoughts, call, turn": body(
        U, {**CALL, "reasoning_content": THOUGHT}, RESULT, {**A, "reasoning_content": "Sun."}, U2, tools=True
    ),
    "begun": body(U, BEGUN),
    "begun, system": body(S, U, BEGUN),
    "begun, turns": body(U, A, U2, BEGUN),
    "begun, blank": body(U, say("assistant", " Leeks and ")),
    "begun, typed parts": body(U, say("assistant", text("Leeks", "and"))),
    "begun, tools": body(U, BEGUN, tools=True),
    "begun, call": body(U, CALL, RESULT, BEGUN, tools=True),
    "begun, thoughts": body(U, {**BEGUN, "reasoning_content": THOUGHT}),
    "begun, thoughts alone": body(U, say("assistant", "", reasoning_content=THOUGHT)),
    "begun, no thinking": body(U, BEGUN, chat_template_kwargs={"enable_thinking": False}),
    "begun, earlier thoughts": body(U, {**A, "reasoning_content": THOUGHT}, U2, BEGUN),
    "begun, own think": body(U, say("assistant", "<think>Hm")),
}  # fmt: skip


class RefusedError(Exception):
    """One of the two makes no text of a conversation; the message is its reason."""


def ours(conversations: Conversations, request: Json) -> str:
    """The text that `serve` makes.

    Raises:
        RefusedError: none.
    """
    try:
        return conversations.read(Fields(request)).text
    except (ChatTemplateError, ApiError) as error:
        raise RefusedError(str(error)) from error


def theirs(url: str, request: Json) -> str:
    """The text that llama-server makes.

    Raises:
        RefusedError: none.
    """
    asked = urllib.request.Request(
        f"{url}/apply-template", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as response:
            return str(json.load(response)["prompt"])
    except urllib.error.HTTPError as error:
        raise RefusedError(error.read().decode(errors="replace")) from error


def made(make: Callable[[Any, Json], str], by: Any, request: Json) -> str | RefusedError:
    """The text that `make` gives, or its refusal."""
    try:
        return make(by, request)
    except RefusedError as refused:
        return refused


def said(text_or_error: str | RefusedError) -> str:
    """The text or the refusal in one line."""
    refused = isinstance(text_or_error, RefusedError)
    return f"refuses: {text_or_error}" if refused else json.dumps(text_or_error, ensure_ascii=False)


def differing(path: Path, server: Path, port: int, info: ModelInfo, fixtures: dict[str, Json]) -> Iterator[
    tuple[str, str | RefusedError, str | RefusedError]
]:  # fmt: skip
    """Fixtures of which the two make different texts, or one alone makes any: name, ours, theirs."""
    template = ChatTemplate.of(replace(info, chat_template=path.read_text(encoding="utf-8")))
    conversations = conversations_of(template)
    command = [str(server), "-m", str(MODEL), "-c", "256", "-np", "1", "--no-warmup", "--jinja", "--port", str(port),
               "--chat-template-file", str(path)]  # fmt: skip
    with running("theirs", command, f"http://127.0.0.1:{port}") as found:
        for name, request in fixtures.items():
            mine, other = made(ours, conversations, request), made(theirs, found.url, request)
            if mine != other and not (isinstance(mine, RefusedError) and isinstance(other, RefusedError)):
                yield name, mine, other


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", type=existing_file, metavar="LLAMA_SERVER", help="the program")
    parser.add_argument("folder", type=existing_folder, metavar="FOLDER", help="of files that end with .jinja")
    parser.add_argument("--only", default="", metavar="NAME", help="templates whose file's name has this")
    parser.add_argument("--fixtures", default="", metavar="WORD", help="conversations whose name has this")
    parser.add_argument("--show", action="store_true", help="both texts")
    parser.add_argument("--port", type=int, default=18990, help="where llama-server listens")
    args = parser.parse_args()
    with open_gguf(MODEL) as gguf:
        info = info_of(gguf, open_tokenizer(gguf))
    fixtures = {name: request for name, request in FIXTURES.items() if args.fixtures in name}
    paths = [path for path in sorted(args.folder.glob("*.jinja")) if args.only in path.name]
    counts: Counter[str] = Counter()
    for path in paths:
        try:
            found = list(differing(path, args.server, args.port, info, fixtures))
        except (ChatTemplateError, RuntimeError) as error:
            print(f"{path.stem}: {error}", flush=True)
            continue
        counts.update(name for name, _, _ in found)
        print(f"{path.stem}: {', '.join(name for name, _, _ in found) or 'alike'}", flush=True)
        for name, mine, other in found if args.show else ():
            print(f"  {name}\n    ours   {said(mine)}\n    theirs {said(other)}", flush=True)
    print(f"\n{sum(counts.values())} of {len(paths) * len(fixtures)} differ: "
          f"{', '.join(f'{name} {n}' for name, n in counts.most_common())}")  # fmt: skip
    return int(bool(counts))


if __name__ == "__main__":
    run_program(main)
