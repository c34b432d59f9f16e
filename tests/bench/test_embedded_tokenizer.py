"""The embedded model's tokenizer and template, as llama.cpp and its users read them."""

from collections.abc import Iterator

import jinja2
import pytest

from bench.perplexity import Scorer
from ggufphys import open_gguf
from ggufphys.embedded import MODEL


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    """The embedded model in llama.cpp."""
    with Scorer(MODEL) as loaded:
        yield loaded


def pieces(scorer: Scorer, text: str) -> list[bytes]:
    """Each token's bytes."""
    return [scorer.vocab.piece(int(token), special=True) for token in scorer.tokenize(text)]


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
def test_llama_cpp_cuts_as_the_trainer_did(scorer: Scorer, cut: str) -> None:
    """The tokens that the model meets are those it was trained on."""
    assert [piece.decode() for piece in pieces(scorer, cut.replace("|", ""))] == cut.split("|")


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n", "a\r\n\tb", "Grüße, 世界! Ω ≈ 3.14 🙂\u00a0end", "é́ǅ\u2028x\x00\x7f", "<|endoftext|>", "'" * 99],
    ids=ascii,
)
def test_any_text_comes_back(scorer: Scorer, text: str) -> None:
    """Every byte has a token: what goes in comes out, also what looks like a control token."""
    assert b"".join(pieces(scorer, text)) == text.encode()
    assert scorer.bos not in scorer.tokenize(text)


def test_chat_template_continues_the_messages() -> None:
    """A chat becomes the messages' contents under one another, with nothing behind the last."""
    with open_gguf(MODEL) as gguf:
        template = jinja2.Environment().from_string(gguf.get_str("tokenizer.chat_template", ""))
    messages = [{"role": "system", "content": "import os"}, {"role": "user", "content": "def f("}]

    assert template.render(messages=messages, add_generation_prompt=True) == "import os\ndef f("
