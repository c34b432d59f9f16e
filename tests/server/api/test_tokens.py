"""Tokens in vLLM's words, as lm-eval's remote tokenizer asks for them."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from server.app import create_app
from server.config import ServerConfig
from tests.server.fake_engine import FakeEngine


class Marking(FakeEngine):
    """Puts a token 1 in front where special ones are asked for, as a model with BOS does."""

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        return (1,) * add_special + super().tokenize(text)


@pytest.fixture
def marking() -> FlaskClient:
    return create_app(ServerConfig(), Marking()).test_client()


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({"prompt": "ab"}, [1, 97, 98]),
        ({"prompt": "ab", "add_special_tokens": False}, [97, 98]),
        ({"prompt": "", "add_special_tokens": False}, []),
        ({"content": "ab"}, [97, 98]),
        ({"content": "ab", "prompt": "cd"}, [97, 98]),
    ],
)
def test_tokenize(marking: FlaskClient, asked: dict[str, Any], tokens: list[int]) -> None:
    """A prompt is tokenized with BOS unless it is asked for without, a content the other way round."""
    assert marking.post("/tokenize", json=asked).get_json()["tokens"] == tokens


def test_counted(client: FlaskClient) -> None:
    """Beside the tokens stand their number, the context's and, where asked for, what each is."""
    asked = {"prompt": "ab", "add_special_tokens": False, "return_token_strs": True}
    assert client.post("/tokenize", json=asked).get_json() == {
        "count": 2, "max_model_len": 100, "tokens": [97, 98], "token_strs": ["a", "b"],
    }  # fmt: skip


def test_conversation(client: FlaskClient) -> None:
    """The tokens of messages are those of the prompt that chat makes of them."""
    messages = [{"role": "user", "content": "Q"}]
    reply = client.post("/tokenize", json={"messages": messages}).get_json()
    assert client.post("/detokenize", json={"tokens": reply["tokens"]}).get_json()["prompt"] == "[user]Q"


def test_tokenizer_info(client: FlaskClient, fake: FakeEngine) -> None:
    """What begins and ends a text, the conversation's template, and no padding."""
    info = client.get("/tokenizer_info").get_json()
    assert (info["bos_token"], info["eos_token"], info["pad_token"]) == ("<s>", "</s>", None)
    assert info["chat_template"] == fake.info.chat_template
