"""Every field that changes an answer, of OpenAI's and llama-server's: honoured, or refused by name."""

from dataclasses import replace
from threading import Timer
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.api.options import HINTS
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Piece, Progress, Started, TokenInfo
from tests.server.fake_engine import FakeEngine, finished, sse_data

# A value that asks for something else than the default. llama-server's: the settings that its answers list.
FIELDS: dict[str, Any] = {
    "temperature": 0.1, "dynatemp_range": 0.5, "dynatemp_exponent": 2.0, "top_k": 7, "top_p": 0.5, "min_p": 0.2,
    "top_n_sigma": 2.0, "xtc_probability": 0.5, "xtc_threshold": 0.3, "typical_p": 0.5, "repeat_last_n": 9,
    "repeat_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.5, "dry_multiplier": 0.5, "dry_base": 2.0,
    "dry_allowed_length": 5, "dry_penalty_last_n": 9, "dry_sequence_breakers": ["x"], "mirostat": 1,
    "mirostat_tau": 4.0, "mirostat_eta": 0.2, "adaptive_target": 0.5, "adaptive_decay": 0.5, "stop": ["x"],
    "max_tokens": 3, "max_completion_tokens": 3, "n_predict": 3, "ignore_eos": True,
    "logit_bias": {"5": 1}, "n_probs": 2, "min_keep": 2, "grammar": 'root ::= "a"', "json_schema": {"type": "object"},
    "samplers": ["top_k"], "seed": 5, "n": 2, "n_cmpl": 2, "cache_prompt": False, "t_max_predict_ms": 5,
    "return_tokens": True, "return_progress": True, "lora": [{"id": 0}], "n_indent": 2, "post_sampling_probs": True,
    "response_fields": ["content"], "multimodal_data": ["x"],
    "response_format": {"type": "json_object"}, "functions": [{"name": "f"}], "function_call": {"name": "f"},
    "verbose": True, "grammar_lazy": True, "preserved_tokens": ["x"],
    "grammar_triggers": [{"type": 0, "value": "x"}], "chat_format": 1, "chat_parser": "x", "generation_prompt": "x",
    "reasoning_control": True, "reasoning_budget_tokens": 5, "reasoning_budget_start_tag": "x",
    "reasoning_budget_end_tag": "x", "reasoning_budget_end_tags": ["x"], "reasoning_budget_message": "x",
    "timings_per_token": True, "modalities": ["audio"],
    "audio": {}, "prediction": {"type": "content"}, "web_search_options": {},
}  # fmt: skip
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]}
OF_COMPLETIONS = {"best_of": 3, "logprobs": 2, "suffix": "end"}
OF_CHAT = {"logprobs": True, "tools": [{"function": {"name": "f"}}], "chat_template_kwargs": {"unused": 1}}


def check(client: FlaskClient, fake: FakeEngine, path: str, body: dict[str, Any], field: str, value: Any) -> None:
    """The field makes another request to the engine, or is refused with its name."""
    response = client.post(path, json={**body, field: value})
    if response.status_code == 400:
        assert response.get_json()["error"]["param"].partition("[")[0] == field
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
    fake._info = replace(fake.info, chat_template=fake.info.chat_template + "<think>")
    body = {"messages": [{"role": "user", "content": "hi"}], "reasoning_budget_tokens": 9}
    check(client, fake, "/v1/chat/completions", body, field, {**FIELDS, **OF_CHAT}[field])


# llama-server's whole schema. Source: llama.cpp 0c1e570 tools/server/server-schema.cpp, make_llama_cmpl_schema.
SCHEMA = """
verbose timings_per_token stream stream_options cache_prompt return_tokens return_progress sse_ping_interval n_predict
max_completion_tokens max_tokens n_indent n_keep n_discard n_cmpl n n_cache_reuse t_max_predict_ms response_fields top_k
top_p min_p top_n_sigma xtc_probability xtc_threshold typical_p temperature dynatemp_range dynatemp_exponent
repeat_last_n repeat_penalty frequency_penalty presence_penalty dry_multiplier dry_base dry_allowed_length
dry_penalty_last_n mirostat mirostat_tau mirostat_eta adaptive_target adaptive_decay seed n_probs logprobs min_keep
backend_sampling post_sampling_probs lora dry_sequence_breakers json_schema grammar grammar_lazy chat_format
reasoning_format generation_prompt parse_tool_calls chat_parser continue_final_message echo preserved_tokens
grammar_triggers reasoning_control reasoning_budget_tokens reasoning_budget_start_tag reasoning_budget_end_tags
reasoning_budget_end_tag reasoning_budget_message logit_bias ignore_eos stop samplers
"""
ELSEWHERE = {
    "stream",
    "stream_options",
    "echo",
    "sse_ping_interval",
    "reasoning_format",
    "parse_tool_calls",
    "continue_final_message",
    "backend_sampling",  # where tokens are chosen, not which
}


def test_the_walk_is_of_all_fields() -> None:
    """Each field of llama-server's schema is walked above, or has a test of what it shows."""
    assert set(SCHEMA.split()) <= {*FIELDS, *OF_COMPLETIONS, *OF_CHAT, *ELSEWHERE, *HINTS}


@pytest.mark.parametrize("field", HINTS)
def test_hints(client: FlaskClient, fake: FakeEngine, field: str) -> None:
    """What only says how llama-server is to keep its memory changes no answer here, and must be a number."""
    for value in (0, 1, 2**31 - 1):
        assert client.post("/completion", json={"prompt": "hi", field: value}).status_code == 200
        assert client.post("/completion", json={"prompt": "hi"}).status_code == 200
        assert fake.requests[-2] == fake.requests[-1]
    refused = client.post("/completion", json={"prompt": "hi", field: "x"})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, field)


def test_pings_by_request(client: FlaskClient, fake: FakeEngine) -> None:
    """`sse_ping_interval` -1 keeps a silent stream silent; the server's own interval (0 here) does not."""
    fake.events = (Started(),)
    body = {"prompt": "hi", "stream": True}

    def streamed(**more: int) -> bytes:
        Timer(0.2, lambda: fake.generations[-1].publish(finished())).start()
        return bytes(client.post("/v1/completions", json={**body, **more}).data)

    assert b": ping" in streamed()
    assert b": ping" not in streamed(sse_ping_interval=-1)


def test_times_under_way(client: FlaskClient, fake: FakeEngine) -> None:
    """With `timings_per_token` each chunk tells how many tokens there are by now."""
    token = TokenInfo(token=65, piece=b"A")
    fake.events = (Started(n_cached=1), *(Piece(text="A", tokens=(token,)) for _ in range(3)), finished())
    body = {"prompt": "hi", "stream": True, "timings_per_token": True}
    chunks = sse_data(client.post("/v1/completions", json=body).data)[:-2]

    assert [chunk["timings"]["predicted_n"] for chunk in chunks] == [1, 2, 3]
    assert {chunk["timings"]["cache_n"] for chunk in chunks} == {1}


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


def test_samplers_by_letters(client: FlaskClient, fake: FakeEngine) -> None:
    """A string has a letter for each sampler, in their order."""
    client.post("/v1/completions", json={"prompt": "hi", "samplers": "kpt"})

    assert fake.requests[-1].sampling.samplers == ("top_k", "top_p", "temperature")


def test_samplers_by_names(client: FlaskClient, fake: FakeEngine) -> None:
    """Names are spelled as llama-server takes them; one that llama.cpp has given up is left out, others are refused."""
    found = {}
    for given in (["top-k", "TEMP", "minp", "nucleus", "typical-p", "tfs_z"], [], "", None):
        client.post("/completion", json={"prompt": "hi", "samplers": given})
        found[str(given)] = fake.requests[-1].sampling.samplers
    assert list(found.values()) == [("top_k", "temperature", "min_p", "top_p", "typ_p"), (), (), None]
    refused = client.post("/completion", json={"prompt": "hi", "samplers": ["magic"]})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "samplers")


def test_odds_by_name(client: FlaskClient, fake: FakeEngine) -> None:
    """With `post_sampling_probs` probabilities are shown as such, in llama-server's words."""
    token = TokenInfo(token=65, piece=b"A", logprob=0.0, top=((65, b"A", 0.0),))
    fake.events = (Started(), Piece(text="A", tokens=(token,)), finished())
    asked = {"n_probs": 1, "post_sampling_probs": True}
    native = client.post("/completion", json={"prompt": "hi", **asked}).get_json()["completion_probabilities"]
    messages = [{"role": "user", "content": "hi"}]
    chat = client.post("/v1/chat/completions", json={"messages": messages, **asked}).get_json()

    shown = {"id": 65, "token": "A", "bytes": [65], "prob": 1.0}
    assert native == chat["choices"][0]["logprobs"]["content"] == [{**shown, "top_probs": [shown]}]


def test_logprobs_in_either_word(client: FlaskClient, fake: FakeEngine) -> None:
    """`logprobs` is true or a number, whichever endpoint it comes to, and as many tokens are shown as are asked for."""
    messages = [{"role": "user", "content": "hi"}]
    found = []
    for path, body in (("/completion", {"prompt": "hi"}), ("/v1/chat/completions", {"messages": messages})):
        for asked in ({"logprobs": True}, {"logprobs": 3}, {"logprobs": 0}, {"logprobs": False}, {"n_probs": 10_000}):
            assert client.post(path, json={**body, **asked}).status_code == 200
            found.append(fake.requests[-1].n_logprobs)
    assert found == [1, 3, None, None, 10_000, 0, 3, None, None, 10_000]
    client.post("/v1/chat/completions", json={"messages": messages, "logprobs": True, "top_logprobs": 100})
    assert fake.requests[-1].n_logprobs == 100


def test_the_limit_that_counts(client: FlaskClient, fake: FakeEngine) -> None:
    """Of several limits llama-server's own counts, then the newer one of OpenAI's."""
    limits = {"max_tokens": 3, "max_completion_tokens": 4, "n_predict": 5}
    found = []
    while limits:
        client.post("/v1/completions", json={"prompt": "hi", **limits})
        found.append(fake.requests[-1].max_tokens)
        limits.popitem()
    assert found == [5, 4, 3]


def test_beginnings_that_are_shown(client: FlaskClient) -> None:
    """An answer that the conversation begins shows its beginning; one that is asked to go on from it does not."""
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well, "}]
    body = {"messages": begun, "max_tokens": 3}
    shown = {}
    for name, more in {
        "": {}, "echo": {"continue_final_message": True, "echo": True}, "silent": {"echo": False},
        "going on": {"continue_final_message": True},
    }.items():  # fmt: skip
        document = client.post("/v1/chat/completions", json={**body, **more}).get_json()
        whole = document["choices"][0]["message"]["content"]
        chunks = sse_data(client.post("/v1/chat/completions", json={**body, **more, "stream": True}).data)[:-1]
        deltas = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
        assert "".join(deltas) == whole
        shown[name] = whole.startswith("Well, ")
    assert shown == {"": True, "echo": True, "silent": False, "going on": False}


def test_progress_has_a_choice(client: FlaskClient, fake: FakeEngine) -> None:
    """A chunk that tells of progress has a choice without text: clients look into each chunk's first."""
    fake.events = (Started(), Progress(n_prompt=2, n_cached=0, n_done=1, elapsed_s=0.1), Piece(text="A"), finished())
    body = {"prompt": "hi", "messages": [{"role": "user", "content": "hi"}], "stream": True, "return_progress": True}
    text = sse_data(client.post("/v1/completions", json=body).data)[0]
    chat = sse_data(client.post("/v1/chat/completions", json=body).data)[0]

    assert text["prompt_progress"] == chat["prompt_progress"] != {}
    assert text["choices"][0]["text"] == ""
    assert chat["choices"][0]["delta"] == {"role": "assistant", "content": None}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": "hi", "json_schema": False}, "json_schema"),
        ("/v1/completions", {"prompt": "hi", "json_schema": []}, "json_schema"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"enable_thinking": "false"}},
            "chat_template_kwargs.enable_thinking",
        ),
    ],
)
def test_values_that_would_be_misread(client: FlaskClient, path: str, body: dict[str, Any], param: str) -> None:
    """A schema that is none, and a text that a template would take for true, are refused by name."""
    response = client.post(path, json=body)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)


def test_values_that_say_nothing(client: FlaskClient, fake: FakeEngine) -> None:
    """An empty schema is any object's; null is no text and no stop string; a character set is no compression."""
    client.post("/v1/completions", json={"prompt": "hi", "json_schema": {}, "stop": [None, "x"]})
    assert fake.requests[-1].sampling.grammar is not None
    assert fake.requests[-1].stop == ("x",)
    messages = [{"role": "user", "content": None}, {"role": "user", "content": "hi"}]
    assert client.post("/v1/chat/completions", json={"messages": messages}).status_code == 200
    begun = [{"role": "assistant", "content": "Well"}]
    assert client.post("/v1/chat/completions", json={"messages": begun}).status_code == 200
    coded = {"Content-Encoding": "UTF-8"}
    assert client.post("/v1/completions", json={"prompt": "hi"}, headers=coded).status_code == 200


def test_stops_of_the_server(fake: FakeEngine) -> None:
    """Strings to stop at that flags name hold for requests that name none, an empty list included."""
    client = create_app(ServerConfig(poll_s=0.01, field_defaults={"stop": ["x"]}), fake).test_client()
    bodies: tuple[dict[str, Any], ...] = ({}, {"stop": []}, {"stop": ""}, {"stop": None}, {"stop": ["y"]})
    for given in bodies:
        assert client.post("/completion", json={"prompt": "hi", **given}).status_code == 200
    assert [request.stop for request in fake.requests] == [("x",), ("x",), ("x",), ("x",), ("y",)]
    assert client.post("/completion", json={"prompt": "hi", "stop": False}).status_code == 400


def test_tokens_of_texts_and_tokens(client: FlaskClient) -> None:
    """/tokenize takes token ids with texts among them, as prompts are."""
    assert client.post("/tokenize", json={"content": [5, "a", 7]}).get_json() == {"tokens": [5, 97, 7]}
    refused = client.post("/tokenize", json={"content": ["a", -1]})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "content")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a", "json_schema": {"const": 7}}),
        ("/completion", {"prompt": "a", "response_format": {"type": "json_schema", "schema": {"const": 7}}}),
        ("/v1/responses", {"input": "a", "text": {"format": {"type": "json_schema", "schema": {"const": 7}}}}),
        ("/v1/messages", {**ASKED, "output_config": {"format": {"type": "json_schema", "schema": {"const": 7}}}}),
    ],
)
def test_a_constraint_in_place_of_the_default(path: str, body: dict[str, Any]) -> None:
    """What a request says that its answer must be like stands in place of the server's own --grammar."""
    engine = FakeEngine()
    client = create_app(ServerConfig(field_defaults={"grammar": 'root ::= "a"'}), engine).test_client()
    bare = {name: value for name, value in body.items() if name in ("prompt", "input", "messages")}

    assert client.post(path, json=body).status_code == 200
    assert client.post(path, json=bare).status_code == 200
    own, default = (asked.sampling.grammar for asked in engine.requests)
    assert own is not None
    assert default is not None
    assert "7" in own.text
    assert default.text == 'root ::= "a"'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/chat/completions", ASKED),
        ("/v1/responses", {"input": "a"}),
        ("/v1/messages", ASKED),
    ],
)
def test_stop_strings_of_the_server(path: str, body: dict[str, Any]) -> None:
    """The strings of --reverse-prompt end answers in every API's words, unless a request names its own."""
    engine = FakeEngine()
    client = create_app(ServerConfig(field_defaults={"stop": ["User:"]}), engine).test_client()
    name = "stop_sequences" if path == "/v1/messages" else "stop"
    for more in ({}, {name: ["x"]}):
        assert client.post(path, json={**body, **more}).status_code == 200

    assert [asked.stop for asked in engine.requests] == [("User:",), ("x",)]
