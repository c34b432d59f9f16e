"""Whatever stands anywhere in a request, it is answered, or told what is wrong: that is never a fault of ours."""

import copy
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from server.app import create_app
from server.config import ServerConfig
from server.engine.model_info import InfillTokens
from tests.server.fake_engine import INFO, FakeEngine

Json = dict[str, Any]
Place = tuple[str | int, ...]

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if enable_thinking %}<think>{% endif %}"
)
SCHEMA: Json = {
    "type": "object",
    "properties": {
        "number": {"type": "integer", "minimum": 1, "maximum": 9},
        "text": {"type": ["string", "null"], "pattern": "^[a-z]+$", "minLength": 1},
        "either": {"anyOf": [{"type": "null"}, {"enum": ["a", 1]}], "description": "d"},
        "both": {"allOf": [{"type": "string"}, {"minLength": 2, "anyOf": [{"maxLength": 3}]}], "anyOf": [{}]},
        "list": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1},
    },
    "required": ["number"],
    "$defs": {"item": {"type": "object", "additionalProperties": {"type": "number"}}},
}
FUNCTION: Json = {"name": "f", "description": "d", "parameters": SCHEMA}
TOOL: Json = {"type": "function", "function": FUNCTION}
MESSAGES: list[Json] = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {
        "role": "assistant", "content": None, "reasoning_content": "r",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "5"},
]  # fmt: skip
OPTIONS: Json = {
    "temperature": 0.5, "top_k": 5, "logit_bias": [[5, 1.0], ["a", False]], "samplers": ["top_k"], "stop": ["x"],
    "dry_sequence_breakers": ["x"], "stream": False, "stream_options": {"include_usage": True}, "seed": 1, "n": 1,
    "lora": [], "speculative.n_max": 0, "max_tokens": 3, "grammar": 'root ::= "a" [b-c]{2,3}',
}  # fmt: skip
BODIES: dict[str, Json] = {
    "/v1/completions": {"prompt": ["a", [1, 2]], "logprobs": 2, "echo": True, "best_of": 1, **OPTIONS},
    "/completion": {"prompt": ["a", 1], "n_probs": 2, "response_fields": ["timings/predicted_n"]},
    "/infill": {
        "input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "f", "text": "t"}], "prompt": "p"
    },
    "/v1/chat/completions": {
        "messages": MESSAGES, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": True, "chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low",
        "logprobs": True, "top_logprobs": 2,
    },
    "/v1/chat/completions?format": {
        "messages": MESSAGES[:2], "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        "reasoning_format": "auto", "thinking_budget_tokens": 4, "continue_final_message": True,
    },
    "/v1/responses": {
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "5"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
        ],
        "instructions": "i", "tools": [{"type": "function", **FUNCTION}], "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "reasoning": {"effort": "low"}, "include": ["message.output_text.logprobs"], "max_output_tokens": 5,
    },
    "/v1/messages": {
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t"}, {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "5"}]},
            ]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True}, "stop_sequences": ["x"], "max_tokens": 5,
        "thinking": {"type": "enabled", "budget_tokens": 5}, "output_config": {"effort": "low"},
    },
    "/v1/rerank": {"query": "a", "documents": ["b"], "texts": ["c"], "top_n": 1, "return_documents": True},
    "/v1/embeddings": {"input": ["a", [1]], "encoding_format": "base64", "dimensions": 2, "embd_normalize": 2},
    "/tokenize": {"content": [1, "a"], "add_special": True, "with_pieces": True},
    "/detokenize": {"tokens": [1, 2]},
    "/apply-template": {"messages": MESSAGES, "tools": [TOOL]},
    "/v1/plan": {"prompt": "a", "max_tokens": 5},
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None,
    True,
    -1.5,
    10**400,
    "",
    "\ud800(",
    [],
    {},
    [None],
    [{"type": []}],
    {"a": 1},
    {"$ref": "#"},
)


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """Where something stands in a document."""
    yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from places(each, (*path, index))


def changed(document: Any, path: Place, value: Any) -> Any:
    """The document with something else in a place."""
    if not path:
        return value
    found = copy.deepcopy(document)
    at = found
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return found


@pytest.mark.parametrize("path", BODIES)
def test_any_value_anywhere(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Odd values in each place of each endpoint's body are answered or refused, none is a 500 with a traceback."""
    infill = InfillTokens(prefix=1, suffix=2, middle=3)
    engine = FakeEngine(info=replace(INFO, chat_template=TEMPLATE, infill=infill, pooling="rank", pair=((1,), (), ())))
    client = create_app(ServerConfig(poll_s=0.01), engine).test_client()
    caplog.set_level(logging.ERROR)
    faults = []
    for place in places(BODIES[path]):
        for value in ODD:
            body = json.dumps(changed(BODIES[path], place, value))
            if client.post(path, data=body, content_type="application/json").status_code == 500:
                faults.append((place, value))

    assert faults == []
    assert caplog.records == []
