"""What comes with POST, by path: fields as JSON schemas, with the ranges that are checked. A table, no logic."""

from collections.abc import Mapping
from typing import Any, Final

from server.api.embeddings import MOST_NORM
from server.api.options import N_MAX
from server.api.sampling_fields import INTEGERS, NUMBERS
from server.engine.model_info import POOLINGS

Json = dict[str, Any]


def _field(kind: str, **more: Any) -> Json:
    return {"type": [kind, "null"], **more}


_TEXT: Final = _field("string")
_FLAG: Final = _field("boolean")
_OBJECT: Final = _field("object")
_COUNT: Final = _field("integer", minimum=-1, maximum=2**31 - 1)
_AMOUNT: Final = _field("integer", minimum=0, maximum=2**31 - 1)
_TOKENS: Final = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_TEXTS: Final = _field("array", items={"type": "string"})
_ADAPTER: Final = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "integer", "minimum": 0}, "scale": {"type": "number"}},
}
_FORMAT: Final = {
    "type": ["object", "null"],
    "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}, "json_schema": {"type": "object"}},
}
# What every completion takes (`options.py`, `sampling_fields.py`, `constraint.py`, `adapters.py`).
_OPTIONS: Final[Json] = {
    **{name: _field("number", minimum=low, maximum=high) for name, (low, high) in NUMBERS.items()},
    **{name: _field("integer", minimum=low, maximum=high) for name, (low, high) in INTEGERS.items()},
    "top_k": _COUNT,
    "seed": _field("integer", minimum=-1, maximum=2**32 - 1),
    "logit_bias": {
        "anyOf": [
            _field("object", additionalProperties={"type": "number"}),
            {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}},
        ]
    },
    "ignore_eos": _FLAG,
    "samplers": {"anyOf": [{"type": "string", "pattern": "^[edskypmxtia]*$"}, _TEXTS]},
    "dry_sequence_breakers": _TEXTS,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "n_predict": _COUNT,
    "t_max_predict_ms": _COUNT,
    "n_indent": _AMOUNT,
    "n_keep": _COUNT,
    "n_discard": _AMOUNT,
    "n_cache_reuse": _AMOUNT,
    "id_slot": _field("integer", minimum=-(2**31), maximum=2**31 - 1),
    "post_sampling_probs": _FLAG,
    "backend_sampling": _FLAG,
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "string"}}]},
    "grammar": _TEXT,
    "json_schema": _OBJECT,
    "response_format": _FORMAT,
    "stream": _FLAG,
    "stream_options": {"type": ["object", "null"], "properties": {"include_usage": _FLAG}},
    "cache_prompt": _FLAG,
    "return_tokens": _FLAG,
    "return_progress": _FLAG,
    "timings_per_token": _FLAG,
    "sse_ping_interval": _COUNT,
    "lora": _field("array", items=_ADAPTER),
    "speculative.n_max": _AMOUNT,
    "speculative.n_min": _AMOUNT,
    "speculative.p_min": _field("number", minimum=0, maximum=1),
    "model": _TEXT,
}
_SEVERAL: Final[Json] = {
    "n": _field("integer", minimum=1, maximum=N_MAX),
    "n_cmpl": _field("integer", minimum=1, maximum=N_MAX),
}
_MESSAGE: Final[Json] = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]},
    },
}
_CHOICE: Final = {"anyOf": [{"enum": ["auto", "none", "required"]}, {"type": "object"}, {"type": "null"}]}
# Of a conversation, whichever endpoint it comes to (`conversation/`).
_CONVERSATION: Final[Json] = {
    "tools": _field("array", items={"type": "object"}),
    "tool_choice": _CHOICE,
    "parallel_tool_calls": _FLAG,
    "parse_tool_calls": _FLAG,
    "reasoning_format": _field("string", enum=["none", "auto", "deepseek", None]),
    "reasoning_budget_tokens": _COUNT,
    "thinking_budget_tokens": _COUNT,
    "reasoning_budget_message": _TEXT,
    "chat_template_kwargs": _OBJECT,
    "continue_final_message": {"anyOf": [_FLAG, {"enum": ["content", "reasoning_content"]}]},
    "add_generation_prompt": _FLAG,
}
_MESSAGES: Final[Json] = {"messages": {"type": "array", "minItems": 1, "items": _MESSAGE}}
_ANY_PROMPT: Final[Json] = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]}
_PROMPT: Final[Json] = {"prompt": {"anyOf": [{"type": "string"}, _TOKENS, {"type": "array", "items": _ANY_PROMPT}]}}
_VECTORS: Final[Json] = {
    "embd_normalize": _field("integer", minimum=-1, maximum=MOST_NORM), "pooling": {"enum": [*POOLINGS, None]},
    "lora": _field("array", items=_ADAPTER),
}  # fmt: skip
_SHOWN: Final[Json] = {"n_probs": _AMOUNT, "logprobs": _AMOUNT, "response_fields": _TEXTS}
_NATIVE: Final = ({**_PROMPT, **_OPTIONS, **_SEVERAL, **_SHOWN}, ("prompt",))
_EXTRA: Final[Json] = {"type": "object", "required": ["text"], "properties": {"filename": _TEXT, "text": _TEXT}}
_ITEM: Final[Json] = {
    "type": "object",
    "properties": {
        "type": {"enum": ["message", "function_call", "function_call_output", "reasoning"]},
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
        "content": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]},
        "call_id": _TEXT, "name": _TEXT, "arguments": _TEXT, "output": {}, "summary": {},
    },
}  # fmt: skip

_BLOCK: Final[Json] = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": ["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]}},
}
_ANTHROPIC: Final[Json] = {
    "messages": {"type": "array", "minItems": 1, "items": {
        "type": "object", "required": ["role", "content"], "properties": {
            "role": {"type": "string", "enum": ["user", "assistant"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _BLOCK}]},
        },
    }},
    "system": {"anyOf": [_TEXT, {"type": "array", "items": _BLOCK}]},
    "max_tokens": _COUNT, "stop_sequences": _TEXTS, "stream": _FLAG, "model": _TEXT,
    "tools": _field("array", items={"type": "object"}),
    "tool_choice": {"type": ["object", "null"], "properties": {"type": {"enum": ["auto", "any", "tool", "none"]}}},
    "thinking": _OBJECT, "output_config": _OBJECT,
    **{name: _field("number", minimum=low, maximum=high) for name, (low, high) in NUMBERS.items()}, "top_k": _COUNT,
}  # fmt: skip

# Fields, and those that must be there. Other paths take any object.
BODIES: Final[Mapping[str, tuple[Json, tuple[str, ...]]]] = {
    "/v1/completions": (
        {
            **_PROMPT, **_OPTIONS, **_SEVERAL, "best_of": _field("integer", minimum=1, maximum=N_MAX), "suffix": _TEXT,
            "echo": _FLAG, "logprobs": _AMOUNT, "n_probs": _AMOUNT,
        },
        ("prompt",),
    ),
    "/completion": _NATIVE,
    "/completions": _NATIVE,
    "/infill": (
        {
            **_OPTIONS, **_SEVERAL, **_SHOWN, "input_prefix": {"type": "string"}, "input_suffix": {"type": "string"},
            "input_extra": _field("array", items=_EXTRA), "prompt": _TEXT,
        },
        ("input_prefix", "input_suffix"),
    ),
    "/v1/chat/completions": (
        {
            **_MESSAGES, **_OPTIONS, **_SEVERAL, **_CONVERSATION, "reasoning_effort": _TEXT, "logprobs": _FLAG,
            "echo": _FLAG,
            "top_logprobs": _AMOUNT, "n_probs": _AMOUNT,
        },
        ("messages",),
    ),
    "/v1/responses": (
        {
            **{name: schema for name, schema in _OPTIONS.items() if name != "max_tokens"},
            **_CONVERSATION, "input": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": _ITEM}]},
            "instructions": _TEXT, "max_output_tokens": _COUNT,
            "text": {"type": ["object", "null"], "properties": {"format": _OBJECT}},
            "reasoning": {"type": ["object", "null"], "properties": {"effort": _TEXT}},
            "include": _TEXTS, "n_probs": _AMOUNT, "top_logprobs": _AMOUNT,
        },
        ("input",),
    ),
    "/v1/messages": (_ANTHROPIC, ("messages",)),
    "/v1/messages/count_tokens": (_ANTHROPIC, ("messages",)),
    "/v1/plan": (
        {
            **_PROMPT, **_MESSAGES, **_OPTIONS, **_SEVERAL, "input": _PROMPT["prompt"], "content": _PROMPT["prompt"],
            "query": _TEXT, "documents": _TEXTS, "texts": _TEXTS,
        },
        (),
    ),
    "/v1/embeddings": (
        {
            "input": _PROMPT["prompt"], "dimensions": _COUNT, **_VECTORS,
            "encoding_format": {"enum": ["float", "base64", None]},
        },
        ("input",),
    ),
    **dict.fromkeys(
        ("/embedding", "/embeddings"),
        ({"input": _PROMPT["prompt"], "content": _PROMPT["prompt"], "dimensions": _COUNT, **_VECTORS}, ()),
    ),
    **dict.fromkeys(
        ("/v1/rerank", "/v1/reranking", "/rerank", "/reranking"),
        (
            {
                "query": _TEXT, "documents": _TEXTS, "texts": _TEXTS, "top_n": _AMOUNT, "return_text": _FLAG,
                "return_documents": _FLAG,
            },
            ("query",),
        ),
    ),
    "/tokenize": (
        {
            "content": _TEXT, "add_special": _FLAG, "parse_special": _FLAG, "with_pieces": _FLAG,
            "prompt": _TEXT, "add_special_tokens": _FLAG, "return_token_strs": _FLAG,
        },
        (),
    ),
    "/detokenize": ({"tokens": _TOKENS}, ("tokens",)),
    "/apply-template": ({**_MESSAGES, **_CONVERSATION}, ("messages",)),
}  # fmt: skip
# What paths take that take an array, by its items.
ARRAYS: Final[Mapping[str, Json]] = {"/lora-adapters": _ADAPTER}
