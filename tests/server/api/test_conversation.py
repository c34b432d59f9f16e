"""Conversations: what templates understand, control tokens that users write, answers that are begun."""

import base64
import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.api.conversation.capabilities import Capabilities
from server.api.conversation.plain import marked, tokens_of
from server.api.conversation.probing import probe
from server.api.embeddings import scaled
from server.app import create_app
from server.config import ServerConfig
from server.engine.events import Piece, Started
from server.template.chat_template import ChatTemplate
from tests.server.fake_engine import INFO, FakeEngine, finished, sse_data

LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
PARTS = "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
TYPED = "{% for m in messages %}[{{ m.role }}]" + PARTS + "{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + LOOP
ONE_CALL = LOOP + "{% for m in messages if m.tool_calls %}{{ m.tool_calls[0].function.arguments | tojson }}{% endfor %}"
ALL_CALLS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
)
ARGUMENTS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}(WRITTEN){% endfor %}{% endfor %}"
)
OWN_WORDS = ARGUMENTS.replace(
    "WRITTEN", "{% if a is mapping %}{% for k, v in a | items %}{{ k }}:{{ v }}{% endfor %}{% else %}{{ a }}{% endif %}"
)
EITHER = ARGUMENTS.replace("WRITTEN", "{{ a if a is string else a | tojson }}")
AS_IT_IS = ARGUMENTS.replace("WRITTEN", "{{ a }}")
NEEDS_PROPERTIES = (
    LOOP
    + "{% for t in tools or [] %}{{ t.function.name }}{{ t.function.parameters.properties.items() | list }}{% endfor %}"
)
WITH_TOOLS = LOOP + "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"


def template(text: str) -> ChatTemplate:
    return ChatTemplate.of(replace(INFO, chat_template=text, adds_bos=False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LOOP, Capabilities()),
        (TYPED, Capabilities(typed=True)),
        (NO_SYSTEM, Capabilities(system=False)),
        (WITH_TOOLS, Capabilities(tools=True)),
        (ONE_CALL, Capabilities(object_arguments=True)),
        (ALL_CALLS, Capabilities(object_arguments=True, several_calls=True)),
        (NEEDS_PROPERTIES, Capabilities(tools=True, bare_tools=False)),
        (OWN_WORDS, Capabilities(object_arguments=True, several_calls=True)),
        (EITHER, Capabilities(several_calls=True)),
        (AS_IT_IS, Capabilities(several_calls=True)),
    ],
)
def test_what_templates_understand(text: str, expected: Capabilities) -> None:
    """Typed contents, a system's role and tools are found out by rendering."""
    assert probe(template(text).attempt) == expected


@pytest.mark.parametrize("text", [LOOP, TYPED, NO_SYSTEM])
def test_no_words_are_lost(text: str) -> None:
    """Whatever the template understands, what system, developer and user say is in the prompt."""
    made = template(text)
    said = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "question"}]
    rendered = made.render(probe(made.attempt).messages(said))

    assert "be brief" in rendered
    assert "question" in rendered
    assert "[developer]" not in rendered


class Words:
    """A tokenizer of characters, and of one control token."""

    END = "<|end|>"

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        if not parse_special or self.END not in text:
            return tuple(map(ord, text))
        first, rest = text.split(self.END, 1)
        return (*map(ord, first), 0, *self.tokenize(rest, parse_special=True))

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        return tuple(chr(token).encode() if token else self.END.encode() for token in tokens)


def test_control_tokens_that_users_write_are_text() -> None:
    """What a user writes cannot end his message; what the template and the assistant's own words hold are tokens."""
    words = Words()
    said = [{"role": "user", "content": "a<|end|>b"}, {"role": "assistant", "content": "c<|end|>"}]
    user, assistant = (message["content"] for message in marked(said, words))
    tokens = tokens_of(f"{user}<|end|>{assistant}", words)

    assert tokens.count(0) == 2
    assert "".join(chr(token) for token in tokens if token) == "a<|end|>bc"


def test_words_that_tools_had_once() -> None:
    """Calls in OpenAI's older words are put as calls, and refusals as what was said."""
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}{% endfor %}"
    )
    fake = FakeEngine(info=replace(INFO, chat_template=template))
    client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "r"},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "nor this"}]},
    ]
    text = client.post("/apply-template", json={"messages": messages, "continue_final_message": False}).get_json()
    call = '[{"type": "function", "id": "call_1", "function": {"name": "f", "arguments": {}}}]'
    assert text["prompt"] == f"[user]q[assistant]{call}[tool]r[assistant]no[assistant]nor this"


def test_an_answer_that_is_begun(client: FlaskClient, fake: FakeEngine) -> None:
    """The last assistant's message is gone on from, not closed, and all of it comes back."""
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "It is"}]
    reply = client.post("/v1/chat/completions", json={"messages": messages}).get_json()

    assert "".join(map(chr, fake.requests[0].prompt)).endswith("[user]Q[assistant]It is")
    assert reply["choices"][0]["message"]["content"] == "It isHello wörld"


CHANNELS = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<final>{% endif %}{{ m.content | trim }}<end>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
THOUGHTS_FIRST = CHANNELS.replace("<final>", "<think></think>").replace(
    "<assistant>{% endif", "<assistant><think>{% endif"
)
SPACES = CHANNELS.replace("<final>", " ")
LAST_USER = CHANNELS.replace("<{{", "{% if loop.last and m.role == 'user' %}(system){% endif %}<{{")


@pytest.mark.parametrize(
    ("text", "begun", "prompt"),
    [
        (CHANNELS, "It is ", "<user>Q<end><assistant><final>It is "),
        (THOUGHTS_FIRST, "It is ", "<user>Q<end><assistant><think></think>It is "),
        (THOUGHTS_FIRST, "<think>hm</think>It", "<user>Q<end><assistant><think>hm</think>It"),
        (SPACES, "It", "<user>Q<end><assistant>It"),
        (LAST_USER, "It", "(system)<user>Q<end><assistant>It"),
    ],
)
def test_begun_answers_stand_where_the_template_writes_answers(text: str, begun: str, prompt: str) -> None:
    """In front of them is what the template puts in front of an answer, not what asks for thoughts or a channel."""
    client = create_app(ServerConfig(poll_s=0.01), FakeEngine(info=replace(INFO, chat_template=text))).test_client()
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": begun}]
    assert client.post("/apply-template", json={"messages": messages}).get_json()["prompt"] == prompt


def test_thoughts_are_apart() -> None:
    """Between <think> and </think> is reasoning_content, in a stream too, however the text is cut."""
    fake = FakeEngine(info=replace(INFO, chat_template=LOOP + "{# <think> #}"))
    fake.events = (*(Piece(text=c) for c in "<think>\nhm</think>\n\nYes"), finished())
    client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Q"}]}
    message = client.post("/v1/chat/completions", json=body).get_json()["choices"][0]["message"]
    deltas = [
        chunk["choices"][0]["delta"]
        for chunk in sse_data(client.post("/v1/chat/completions", json={**body, "stream": True}).data)[:-1]
    ]

    assert (message["reasoning_content"], message["content"]) == ("hm", "Yes")
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "hm"
    assert "".join(delta.get("content") or "" for delta in deltas) == "Yes"


def test_tokens_of_thoughts() -> None:
    """Usage says how many of the tokens were thoughts, as OpenAI's: here of characters, whose tokens the fake has."""
    fake = FakeEngine(info=replace(INFO, chat_template=LOOP + "{# <think> #}"))
    client = create_app(ServerConfig(poll_s=0.01), fake).test_client()
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Q"}],
        "n": 2,
        "stream_options": {"include_usage": True},
    }
    fake.events = ()
    for i in (0, 1):
        pieces = (Piece(text=c, index=i) for c in "<think>hm</think>Yes")
        fake.events = (*fake.events, *pieces, replace(finished(), index=i))
    whole = client.post("/v1/chat/completions", json=body).get_json()["usage"]
    last = sse_data(client.post("/v1/chat/completions", json={**body, "stream": True}).data)[-2]["usage"]
    assert whole["completion_tokens_details"] == last["completion_tokens_details"] == {"reasoning_tokens": 4}
    fake.events = (*(Piece(text=c) for c in "<think>hm</think>Yes"), finished())
    response = client.post("/v1/responses", json={"input": "Q"}).get_json()
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}


def test_how_answers_are_read(client: FlaskClient, fake: FakeEngine) -> None:
    """Thoughts stay with `reasoning_format` none, calls with `parse_tool_calls` false, and an assistant's last message
    is closed with `continue_final_message` false; forms that are not had are refused by name.
    """
    fake._info = replace(INFO, chat_template=LOOP + "{# <think> #}")
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    fake.events = (Piece(text=f"<think>hm</think>{call}"), finished())
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
        "tools": [{"function": {"name": "f"}}], "continue_final_message": False, "parse_tool_calls": False,
    }  # fmt: skip
    message = client.post("/v1/chat/completions", json=body).get_json()["choices"][0]["message"]
    body["reasoning_format"] = "none"
    whole = client.post("/v1/chat/completions", json=body).get_json()["choices"][0]["message"]
    refused = client.post("/v1/chat/completions", json={**body, "reasoning_format": "deepseek-legacy"})

    assert message == {"role": "assistant", "content": call, "refusal": None, "reasoning_content": "hm"}
    assert whole == {"role": "assistant", "content": f"<think>hm</think>{call}", "refusal": None}
    assert "[assistant]A" in "".join(map(chr, fake.requests[0].prompt))
    assert refused.get_json()["error"]["param"] == "reasoning_format"


def test_formats(client: FlaskClient, fake: FakeEngine) -> None:
    """json_object, json_schema and a grammar of one's own become the answer's grammar, in both endpoints."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "Q"}]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    client.post("/v1/chat/completions", json={**chat, "response_format": form})
    client.post("/v1/completions", json={"prompt": "Q", "json_schema": schema})
    client.post("/v1/chat/completions", json={**chat, "response_format": {"type": "json_object"}})
    client.post("/v1/completions", json={"prompt": "Q", "grammar": 'root ::= "a"'})
    by_form, by_schema, any_object, own = (request.sampling.grammar for request in fake.requests)

    assert by_form == by_schema
    assert by_form is not None
    assert '"\\"a\\""' in by_form.text
    assert any_object is not None
    assert any_object != by_form
    assert own is not None
    assert own.text == 'root ::= "a"'


def test_choices_that_may_be_null(client: FlaskClient, fake: FakeEngine) -> None:
    """An enum stays one beside a type that allows for null; a property that is called enum is a property."""
    choice = {"type": ["string", "null"], "enum": ["red", None]}
    schema = {"type": "object", "properties": {"a": choice, "enum": {"type": "integer"}}, "required": ["a", "enum"]}
    client.post("/v1/completions", json={"prompt": "Q", "json_schema": schema})
    grammar = fake.requests[0].sampling.grammar

    assert grammar is not None
    assert '"\\"red\\""' in grammar.text
    assert '"null"' in grammar.text
    assert '"\\"enum\\""' in grammar.text


def test_embeddings(client: FlaskClient) -> None:
    """A vector of length 1 for each text, as numbers or in base64, and the tokens that they took."""
    reply = client.post("/v1/embeddings", json={"input": ["ab", [1, 2, 3]]}).get_json()
    packed = client.post("/v1/embeddings", json={"input": "ab", "encoding_format": "base64"}).get_json()

    assert [entry["embedding"] for entry in reply["data"]] == [[1.0, 0.0], [1.0, 0.0]]
    assert reply["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == (1.0, 0.0)
    native = client.post("/embedding", json={"content": "ab", "embd_normalize": -1}).get_json()
    assert native == [{"index": 0, "embedding": [[2.0, 0.0]]}]
    assert packed["data"][0]["encoding_format"] == "base64"
    mixed = client.post("/v1/embeddings", json={"input": ["a", 1, {"prompt_string": "b"}]})
    assert (mixed.status_code, mixed.get_json()["error"]["param"]) == (400, "input")
    assert client.post("/v1/embeddings", json={"input": ["a", 1]}).get_json()["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (-1, [3.0, -4.0]),
        (0, [24570.0, -32760.0]),
        (1, [3 / 7, -4 / 7]),
        (2, [0.6, -0.8]),
        (3, [3 / 91 ** (1 / 3), -4 / 91 ** (1 / 3)]),
    ],
)
def test_norms_of_embeddings(how: int, expected: list[float]) -> None:
    """A vector is scaled by any of llama-server's norms; one of zeros stays."""
    assert scaled([3.0, -4.0], how) == pytest.approx(expected, rel=1e-4)
    assert scaled([0.0, 0.0], how) == [0.0, 0.0]


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_high_norms(size: float) -> None:
    """A high power of a large number, or of a small one, is beyond what a float holds."""
    assert scaled([size, -size / 2], 100) == pytest.approx([1.0, -0.5])


def test_many_vectors() -> None:
    """A long answer is written as it is sent, and takes little memory beside the vectors."""
    rows, n = memoryview(bytes(4 * 1024)).cast("f"), 2000

    class Many(FakeEngine):
        def embed(self, prompts: Any, *rest: Any, **named: Any) -> Any:
            return ((rows,) * (3 if len(prompts) < n else 1),) * len(prompts)

    client = create_app(ServerConfig(), Many()).test_client()
    found = bytearray()
    tracemalloc.start()
    for piece in client.post("/v1/embeddings", json={"input": [[5]] * n}, buffered=False).iter_encoded():
        found += piece[:1] + piece[-1:]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = client.post("/v1/embeddings", json={"input": [[5]] * n}).get_json()
    of_tokens = client.post("/embedding", json={"input": [[5], [6]]}).get_json()

    assert found[:1] + found[-1:] == b"{\n"
    assert peak < n * len(rows)  # of JSON there are four times as many bytes, and of objects thirty
    assert [each["index"] for each in whole["data"]] == list(range(n))
    assert whole["usage"]["total_tokens"] == n
    assert [(each["index"], len(each["embedding"])) for each in of_tokens] == [(0, 3), (1, 3)]


def test_too_many_numbers() -> None:
    """Who asks for more than there is room for is told before anything is computed."""
    client = create_app(ServerConfig(), FakeEngine(info=replace(INFO, n_embd=1 << 22))).test_client()

    found = client.post("/embedding", json={"input": [[5] * 9] * 2, "pooling": "none"})
    assert (found.status_code, "75,497,472 numbers" in found.get_json()["error"]["message"]) == (400, True)
    assert client.post("/v1/embeddings", json={"input": [[5] * 9] * 2, "pooling": "mean"}).status_code == 200


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_numbers(number: float) -> None:
    """Vectors and scores that JSON has no words for are an error that says which text they are of."""

    class Broken(FakeEngine):
        def embed(self, prompts: Any, *rest: Any, **named: Any) -> Any:
            return (*super().embed(prompts[1:]), ((1.0, number),))

    info = replace(INFO, pooling="rank", scores=True, pair=((1,), (2,), (3,)))
    for path, body in (
        ("/v1/embeddings", {"input": ["a", "b"]}),
        ("/v1/rerank", {"query": "q", "documents": ["a", "b"]}),
    ):
        client = create_app(ServerConfig(), Broken(info=info if "query" in body else INFO)).test_client()
        found = client.post(path, json=body)
        assert (found.status_code, found.get_json()["error"]["code"]) == (500, "engine_error")
        assert "text 1" in found.get_json()["error"]["message"]


def test_llama_servers_endpoints(client: FlaskClient) -> None:
    """Tokens both ways, the prompt of a conversation, props, slots and metrics in llama-server's shapes."""
    assert client.post("/tokenize", json={"content": "ab"}).get_json() == {"tokens": [97, 98]}
    pieces = client.post("/tokenize", json={"content": "a", "with_pieces": True}).get_json()
    assert pieces == {"tokens": [{"id": 97, "piece": "a"}]}
    assert client.post("/detokenize", json={"tokens": [97, 98]}).get_json()["content"] == "ab"
    body = {"messages": [{"role": "user", "content": "Q"}]}
    assert client.post("/apply-template", json=body).get_json() == {"prompt": "[user]Q"}
    assert client.post("/v1/chat/completions/input_tokens", json=body).get_json()["input_tokens"] == 7
    props = client.get("/props").get_json()
    assert props["total_slots"] == 1
    assert props["default_generation_settings"]["params"]["top_k"] == 40
    assert props["chat_template_caps"]["supports_system_role"] is True
    assert client.get("/slots").get_json()[0]["is_processing"] is False
    client.post("/v1/completions", json={"prompt": "Q"})
    metrics = client.get("/metrics").text
    assert "llamacpp:tokens_predicted_total" in metrics
    assert "ggufphys:time_to_first_token_seconds_count 1.0" in metrics


THINKING = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ enable_thinking }}<think>\n"


def test_answers_as_the_model_writes_them() -> None:
    """With --skip-chat-parsing thoughts and calls are content, and a grammar holds those alone that are forced."""
    said = '<think>hm</think><tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    fake = FakeEngine(
        (Started(), Piece(text=said), finished()), info=replace(INFO, chat_template=WITH_TOOLS + "<think>")
    )
    client = create_app(ServerConfig(poll_s=0.01, skip_chat_parsing=True), fake).test_client()
    body = {"messages": [{"role": "user", "content": "Q"}], "tools": [{"type": "function", "function": {"name": "f"}}]}
    for more in ({}, {"reasoning_format": "auto", "parse_tool_calls": True}, {"tool_choice": "required"}):
        choice = client.post("/v1/chat/completions", json={**body, **more}).get_json()["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": said, "refusal": None}
        assert choice["finish_reason"] == "stop"
        assert fake.detokenize(fake.requests[-1].prompt) == "[user]Qf<think>"
    assert [request.sampling.grammar is None for request in fake.requests] == [True, True, False]


def test_answers_that_are_not_begun() -> None:
    """With --no-prefill-assistant a last message of the assistant's is closed, unless a request goes on from it."""
    fake = FakeEngine()
    client = create_app(ServerConfig(poll_s=0.01, prefill_assistant=False), fake).test_client()
    fake._info = replace(INFO, chat_template=LOOP + "{% if add_generation_prompt %}[assistant]{% endif %}")
    body = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    prompts = {}
    for name, more in {"": {}, "asked": {"continue_final_message": True}}.items():
        reply = client.post("/v1/chat/completions", json={**body, **more}).get_json()
        assert reply["choices"][0]["message"]["content"] == "Hello wörld"
        prompts[name] = fake.detokenize(fake.requests[-1].prompt)
    assert prompts == {"": "[user]Q[assistant]A[assistant]", "asked": "[user]Q[assistant]A"}


@pytest.fixture
def thinker(fake: FakeEngine, client: FlaskClient) -> FlaskClient:
    """A model whose conversations end within its thoughts."""
    fake._info = replace(fake.info, chat_template=THINKING)
    return client


def test_a_call_is_forced_behind_thoughts(thinker: FlaskClient, fake: FakeEngine) -> None:
    """A grammar holds behind the thoughts that the template has begun, and the call there is read as one."""
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    fake.events = (Started(), Piece(text=f"hm</think>{call}"), finished())
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    body = {"messages": [{"role": "user", "content": "q"}], "tools": tools, "tool_choice": "required"}
    message = thinker.post("/v1/chat/completions", json=body).get_json()["choices"][0]["message"]

    assert message["reasoning_content"] == "hm"
    assert message["tool_calls"][0]["function"]["name"] == "f"
    thoughts = fake.requests[-1].thoughts
    assert thoughts is not None
    assert (thoughts.begun, thoughts.budget) == (True, None)


def test_budgets_of_thoughts(thinker: FlaskClient, fake: FakeEngine) -> None:
    """A budget is kept in chat and messages, -1 is none, and where nothing is thought it is refused by name."""
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "q"}], "max_tokens": 9}

    def budget(path: str, **more: object) -> int | None:
        assert thinker.post(path, json={**asked, **more}).status_code == 200
        thoughts = fake.requests[-1].thoughts
        return None if thoughts is None else thoughts.budget

    assert budget("/v1/chat/completions", reasoning_budget_tokens=5, reasoning_budget_message="So") == 5
    thoughts = fake.requests[-1].thoughts
    assert thoughts is not None
    assert "".join(map(chr, thoughts.closing)) == "So</think>"
    assert budget("/v1/chat/completions", reasoning_budget_tokens=-1) is None
    assert budget("/v1/messages", thinking={"type": "enabled", "budget_tokens": 1024}) == 1024
    refused = thinker.post("/v1/completions", json={"prompt": "q", "reasoning_budget_tokens": 5})
    assert refused.get_json()["error"]["param"] == "reasoning_budget_tokens"


def test_whether_to_think(thinker: FlaskClient, fake: FakeEngine) -> None:
    """A template that asks is told to think, unless the request says otherwise in either of the ways."""
    messages = [{"role": "user", "content": "q"}]
    for more, said in (
        ({}, "True"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "False"),
        ({"reasoning_effort": "none"}, "False"),
        ({"reasoning_effort": "low"}, "True"),
    ):
        reply = thinker.post("/apply-template", json={"messages": messages, **more})
        assert reply.get_json()["prompt"] == f"[user]q{said}<think>"


REASONING = "{{ enable_thinking }} {{ reasoning_effort }} {{ reasoning_strength }} {{ clear_thinking }}"


def asked_of_a_server(defaults: dict[str, Any], **body: object) -> tuple[FakeEngine, Any]:
    """A server with these defaults of fields, and its answer to a conversation."""
    fake = FakeEngine(info=replace(INFO, chat_template=f"{LOOP}{REASONING}<think>"))
    fake.events = (Started(), Piece(text="hm</think>yes"), finished())
    client = create_app(ServerConfig(field_defaults=defaults, poll_s=0.01), fake).test_client()
    path = str(body.pop("path", "/v1/chat/completions"))
    reply = client.post(path, json={"messages": [{"role": "user", "content": "q"}], "max_tokens": 9, **body})
    assert reply.status_code == 200, reply.get_json()
    return fake, reply.get_json()


@pytest.mark.parametrize(
    ("kwargs", "body", "said"),
    [
        ({}, {}, "True   False"),
        ({"enable_thinking": False}, {}, "False   False"),
        ({"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": True}}, "True   False"),
        ({"enable_thinking": False}, {"path": "/v1/messages", "thinking": {"type": "enabled"}}, "True   False"),
        ({"reasoning_effort": "low"}, {}, "True low low False"),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "high"}, "True high high False"),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "none"}, "False   False"),
        ({"preserve_reasoning": False}, {}, "True   True"),
    ],
)
def test_reasoning_by_flags(kwargs: dict[str, object], body: dict[str, object], said: str) -> None:
    """What flags say of thinking is told to templates as llama-server tells it, unless the request says otherwise."""
    fake, _ = asked_of_a_server({"chat_template_kwargs": kwargs}, **body)
    assert "".join(map(chr, fake.requests[-1].prompt)) == f"[user]q{said}<think>"


def test_budgets_and_formats_by_flags() -> None:
    """A budget of the flags' is every conversation's without one of its own, and -1 is none; nobody else has it."""
    flags = {"reasoning_budget_tokens": 7, "reasoning_budget_message": "So", "reasoning_format": "none"}
    for body, budget in (
        ({}, 7), ({"thinking_budget_tokens": 3}, 3), ({"reasoning_budget_tokens": -1}, 7),
        ({"path": "/v1/messages", "thinking": {"type": "enabled", "budget_tokens": 1024}}, 1024),
    ):  # fmt: skip
        fake, reply = asked_of_a_server(flags, **body)
        thoughts = fake.requests[-1].thoughts
        assert thoughts is not None
        assert (thoughts.budget, "".join(map(chr, thoughts.closing))) == (budget, "So</think>")
    _, reply = asked_of_a_server(flags)
    assert reply["choices"][0]["message"]["content"] == "hm</think>yes"
    _, reply = asked_of_a_server(flags, reasoning_format="deepseek")
    assert reply["choices"][0]["message"]["content"] == "yes"
    fake, _ = asked_of_a_server(flags, path="/v1/completions", prompt="q", messages=None)
    assert fake.requests[-1].thoughts is None


def test_kwargs_are_added_to_the_servers() -> None:
    """A request's chat_template_kwargs stand beside those of the command line, and win over them."""
    fake = FakeEngine(info=replace(INFO, chat_template="{{ a }}{{ b }}"))
    app = create_app(ServerConfig(field_defaults={"chat_template_kwargs": {"a": 1, "b": 2}}), fake)
    body = {"messages": [{"role": "user", "content": "q"}], "chat_template_kwargs": {"b": 3}}
    assert app.test_client().post("/apply-template", json=body).get_json()["prompt"] == "13"
