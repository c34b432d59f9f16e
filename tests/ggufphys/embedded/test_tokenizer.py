"""The embedded model's tokenizer and template, as llama.cpp and its users read them."""

import jinja2
import pytest

from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from refengine.text.llama import LlamaTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> LlamaTokenizer:
    """The embedded model's, in llama.cpp."""
    with open_gguf(MODEL) as gguf:
        return LlamaTokenizer(gguf)


def pieces(tokenizer: LlamaTokenizer, text: str) -> list[bytes]:
    """Each token's bytes."""
    return [tokenizer.piece(token, special=True) for token in tokenizer.tokenize(text, parse_special=False)]


# Cut by the trainer's tokenizer (scripts/train/prepare.py); `|` marks the cuts.
@pytest.mark.parametrize(
    "cut",
    [
        "def| total|(|values|):|\n   | return| s|um|(|values|)|\n",
        "\t|x| =| '|test|'| +| \"|do|es|n|'t|\"|\r|\n|\r|\n",
        "    |\n\n       | self|._|cache|[|key|]| =| (|a|,| b|)|  |\n",
        "0|x|7|F| 1|_|000| 1|e|-|9| |~~|~| =|====| ...",
    ],
)
def test_llama_cpp_cuts_as_the_trainer_did(tokenizer: LlamaTokenizer, cut: str) -> None:
    """The tokens that the model meets are those it was trained on."""
    assert [piece.decode() for piece in pieces(tokenizer, cut.replace("|", ""))] == cut.split("|")


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n", "a\r\n\tb", "Grüße, 世界! Ω ≈ 3.14 🙂\u00a0end", "é́ǅ\u2028x\x00\x7f", "<|endoftext|>", "'" * 99],
    ids=ascii,
)
def test_any_text_comes_back(tokenizer: LlamaTokenizer, text: str) -> None:
    """Every byte has a token: what goes in comes out, also what looks like a control token."""
    assert b"".join(pieces(tokenizer, text)) == text.encode()
    assert tokenizer.bos not in tokenizer.tokenize(text, parse_special=False)


def test_chat_template_continues_the_messages() -> None:
    """A chat becomes the messages' contents under one another, with nothing behind the last."""
    with open_gguf(MODEL) as gguf:
        template = jinja2.Environment().from_string(gguf.get_str("tokenizer.chat_template", ""))
    messages = [{"role": "system", "content": "import os"}, {"role": "user", "content": "def f("}]

    assert template.render(messages=messages, add_generation_prompt=True) == "import os\ndef f("
