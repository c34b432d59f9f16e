"""llama-server's own shape: /completion, /infill, and suffixes."""

from dataclasses import replace

from flask.testing import FlaskClient

from server.engine.events import Event, Piece, Started, TokenInfo
from server.engine.model_info import InfillTokens
from tests.server.fake_engine import INFO, FakeEngine, finished, sse_data

# The keys of an answer of llama-server's (0c1e570), of its settings, and of a chunk of its streams.
ANSWER = """
index content tokens id_slot stop model tokens_predicted tokens_evaluated generation_settings prompt has_new_line
truncated stop_type stopping_word tokens_cached timings
"""
SETTINGS = """
seed temperature dynatemp_range dynatemp_exponent top_k top_p min_p top_n_sigma xtc_probability xtc_threshold
typical_p repeat_last_n repeat_penalty presence_penalty frequency_penalty dry_multiplier dry_base dry_allowed_length
dry_penalty_last_n dry_sequence_breakers mirostat mirostat_tau mirostat_eta adaptive_target adaptive_decay stop
max_tokens n_predict n_keep n_discard ignore_eos stream logit_bias n_probs min_keep grammar grammar_lazy
grammar_triggers preserved_tokens chat_format reasoning_format reasoning_in_content generation_prompt samplers
speculative.types timings_per_token post_sampling_probs backend_sampling lora
"""
CHUNK = "index content tokens stop id_slot tokens_predicted tokens_evaluated"
TOKENS = tuple(TokenInfo(token=ord(c), piece=c.encode(), logprob=-0.5) for c in "AB")
EVENTS: tuple[Event, ...] = (Started(), *(Piece(text=chr(t.token), tokens=(t,)) for t in TOKENS), finished())
FIM = InfillTokens(prefix=1, suffix=2, middle=3, repo=4, separator=5)


def test_whole(client: FlaskClient, fake: FakeEngine) -> None:
    """A whole answer has llama-server's keys and no others, and the figures of what happened."""
    fake.events = EVENTS
    reply = client.post("/completion", json={"prompt": "hi", "n_predict": 5, "return_tokens": True}).get_json()

    assert set(reply) == set(ANSWER.split())
    assert set(reply["generation_settings"]) == set(SETTINGS.split())
    assert (reply["content"], reply["tokens"], reply["prompt"]) == ("AB", [65, 66], "hi")
    assert (reply["stop_type"], reply["stopping_word"]) == ("eos", "")
    assert reply["tokens_cached"] == reply["tokens_evaluated"] + reply["tokens_predicted"] - 1
    assert None not in reply["timings"].values()


def test_why_it_ended(client: FlaskClient, fake: FakeEngine) -> None:
    """A stop string is told as `word` with its text, a limit as `limit`."""
    fake.events = (*EVENTS[:-1], replace(finished(), stop="x"))
    word = client.post("/completion", json={"prompt": "hi"}).get_json()
    fake.events = (*EVENTS[:-1], finished("length"))
    limit = client.post("/completion", json={"prompt": "hi"}).get_json()

    assert (word["stop_type"], word["stopping_word"]) == ("word", "x")
    assert limit["stop_type"] == "limit"


def test_streamed(client: FlaskClient, fake: FakeEngine) -> None:
    """Chunks have llama-server's keys and their tokens; the last one is the answer without them; there is no [DONE]."""
    fake.events = EVENTS
    *chunks, last = sse_data(client.post("/completion", json={"prompt": "hi", "stream": True}).data)

    assert [set(chunk) for chunk in chunks] == [set(CHUNK.split())] * 2
    assert [(chunk["content"], chunk["tokens"], chunk["tokens_predicted"]) for chunk in chunks] == [
        ("A", [65], 1), ("B", [66], 2),
    ]  # fmt: skip
    assert (last["content"], last["tokens"], last["stop"]) == ("", [], True)


def test_several_and_parts_of_them(client: FlaskClient, fake: FakeEngine) -> None:
    """Several prompts are an array; `response_fields` picks by path, and what is not there is left out."""
    fake.events = EVENTS
    body = {"prompt": ["a", "b"], "response_fields": ["content", "timings/cache_n", "no/such"]}
    assert client.post("/completion", json=body).get_json() == [{"content": "AB", "timings/cache_n": 1}] * 2


def test_probabilities(client: FlaskClient, fake: FakeEngine) -> None:
    """`n_probs` shows each token with those beside it."""
    fake.events = EVENTS
    reply = client.post("/completion", json={"prompt": "hi", "n_probs": 1}).get_json()
    assert [each["id"] for each in reply["completion_probabilities"]] == [65, 66]


def test_infill(client: FlaskClient, fake: FakeEngine) -> None:
    """Other files, then prefix, prompt and suffix between the model's own tokens, as llama-server orders them."""
    fake._info = replace(INFO, infill=FIM, adds_bos=False, n_ctx_seq=1000, n_batch=100)
    body = {
        "input_prefix": "p", "input_suffix": "s", "prompt": "b", "input_extra": [{"filename": "x", "text": "e"}],
    }  # fmt: skip
    client.post("/infill", json=body)
    text = "".join(f"<{t}>" if t < 9 else chr(t) for t in fake.requests[0].prompt)
    assert text == "<4>myproject\n<5>x\ne<5>filename\n<1>pb<2>s<3>"


def test_suffix(client: FlaskClient, fake: FakeEngine) -> None:
    """A suffix stands behind the middle; a model without such tokens refuses it, and /infill with a 501."""
    refused = client.post("/v1/completions", json={"prompt": "p", "suffix": "s"})
    assert refused.get_json()["error"]["param"] == "suffix"
    assert client.post("/infill", json={"input_prefix": "p", "input_suffix": "s"}).status_code == 501
    fake._info = replace(INFO, infill=FIM)
    client.post("/v1/completions", json={"prompt": "p", "suffix": "s"})
    assert fake.requests[-1].prompt == (1, ord("p"), 2, ord("s"), 3)


def test_mixed_prompts(client: FlaskClient, fake: FakeEngine) -> None:
    """Token ids with texts among them are one prompt, and an object's `prompt_string` is a text."""
    client.post("/completion", json={"prompt": [65, "bc", 66]})
    client.post("/completion", json={"prompt": {"prompt_string": "bc"}})
    assert [request.prompt for request in fake.requests] == [(65, 98, 99, 66), (98, 99)]


def test_nothing_is_wanted(client: FlaskClient) -> None:
    """llama.vim's request that only fills the memory: no samplers, no tokens, and no fields in the answer."""
    body = {
        "prompt": "a", "n_predict": 0, "temperature": 0.0, "stream": False, "samplers": [], "cache_prompt": True,
        "t_max_prompt_ms": 1, "t_max_predict_ms": 1, "response_fields": [""],
    }  # fmt: skip
    response = client.post("/completion", json=body)
    assert (response.status_code, response.get_json()) == (200, {})
    refused = client.post("/completion", json={**body, "response_fields": [5]})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "response_fields")
