"""Every field that changes an answer, of OpenAI's and llama-server's: honoured, or refused by name."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.server.fake_engine import FakeEngine

# A value that asks for something else than the default. llama-server's: the settings that its answers list.
FIELDS: dict[str, Any] = {
    "temperature": 0.1, "dynatemp_range": 0.5, "dynatemp_exponent": 2.0, "top_k": 7, "top_p": 0.5, "min_p": 0.2,
    "top_n_sigma": 2.0, "xtc_probability": 0.5, "xtc_threshold": 0.3, "typical_p": 0.5, "repeat_last_n": 9,
    "repeat_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.5, "dry_multiplier": 0.5, "dry_base": 2.0,
    "dry_allowed_length": 5, "dry_penalty_last_n": 9, "dry_sequence_breakers": ["x"], "mirostat": 1,
    "mirostat_tau": 4.0, "mirostat_eta": 0.2, "adaptive_target": 0.5, "adaptive_decay": 0.5, "stop": ["x"],
    "max_tokens": 3, "max_completion_tokens": 3, "n_predict": 3, "n_keep": 5, "ignore_eos": True,
    "logit_bias": {"5": 1}, "n_probs": 2, "min_keep": 2, "grammar": 'root ::= "a"', "json_schema": {"type": "object"},
    "samplers": ["top_k"], "seed": 5, "n": 2, "n_cmpl": 2, "cache_prompt": False, "t_max_predict_ms": 5,
    "return_tokens": True, "return_progress": True, "id_slot": 1, "lora": [{"id": 0}], "n_indent": 2,
    "n_cache_reuse": 5, "post_sampling_probs": True, "response_fields": ["content"], "multimodal_data": ["x"],
    "response_format": {"type": "json_object"}, "functions": [{"name": "f"}], "function_call": {"name": "f"},
    "modalities": ["audio"], "audio": {}, "prediction": {"type": "content"}, "web_search_options": {},
}  # fmt: skip
OF_COMPLETIONS = {"best_of": 3, "logprobs": 2, "suffix": "end"}
OF_CHAT = {"logprobs": True, "tools": [{"function": {"name": "f"}}], "chat_template_kwargs": {"unused": 1}}


def check(client: FlaskClient, fake: FakeEngine, path: str, body: dict[str, Any], field: str, value: Any) -> None:
    """The field makes another request to the engine, or is refused with its name."""
    response = client.post(path, json={**body, field: value})
    if response.status_code == 400:
        assert response.get_json()["error"]["param"] == field
        return
    assert response.status_code == 200, response.text
    client.post(path, json=body)
    assert fake.requests[-2] != fake.requests[-1], f"{field} was ignored"


@pytest.mark.parametrize("field", [*FIELDS, *OF_COMPLETIONS])
def test_fields_of_completions(client: FlaskClient, fake: FakeEngine, field: str) -> None:
    """In /v1/completions no field is ignored."""
    check(client, fake, "/v1/completions", {"prompt": "hi"}, field, {**FIELDS, **OF_COMPLETIONS}[field])


@pytest.mark.parametrize("field", [*FIELDS, *(name for name in OF_CHAT if name != "chat_template_kwargs")])
def test_fields_of_chat(client: FlaskClient, fake: FakeEngine, field: str) -> None:
    """Nor in /v1/chat/completions."""
    body = {"messages": [{"role": "user", "content": "hi"}]}
    check(client, fake, "/v1/chat/completions", body, field, {**FIELDS, **OF_CHAT}[field])


def test_what_is_shown_otherwise(client: FlaskClient) -> None:
    """`echo`, `stream` and `stream_options` change what is sent, not what is generated."""
    plain = client.post("/v1/completions", json={"prompt": "hi"})
    echoed = client.post("/v1/completions", json={"prompt": "hi", "echo": True})
    streamed = client.post("/v1/completions", json={"prompt": "hi", "stream": True})
    counted = client.post(
        "/v1/chat/completions",
        json={
            "messages": [{"role": "user", "content": "hi"}], "stream": True, "stream_options": {"include_usage": True},
        },
    )  # fmt: skip

    assert echoed.get_json()["choices"][0]["text"] == "hi" + plain.get_json()["choices"][0]["text"]
    assert streamed.mimetype == "text/event-stream"
    assert b'"completion_tokens":2' in counted.data
