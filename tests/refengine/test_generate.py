"""Text from a model that runs in numpy."""

from pathlib import Path

import pytest

import refengine
from ggufphys import UnsupportedError
from ggufphys.embedded import MODEL
from refengine.generate import text_of
from refengine.text.open import open_tokenizer
from tests.ggufphys.models import llama_metadata, llama_tensors, write_model

PROMPT = "import os\n\ndef read_lines(path):\n"


@pytest.fixture(scope="module")
def model() -> refengine.Model:
    """The embedded model."""
    return refengine.load(MODEL, n_ctx=128)


def test_text_comes_in_pieces(model: refengine.Model) -> None:
    """A prompt is gone on with, piece by piece, and the same again when it is asked again."""
    pieces = list(model.generate(PROMPT, 12))

    assert len(pieces) > 6
    assert pieces == list(model.generate(model.tokenize(PROMPT), 12))
    tokens = model.tokenize("".join(pieces))
    assert model.tokenizer.text(tokens) == "".join(pieces)


def test_seed(model: refengine.Model) -> None:
    """A seed gives the same text again, and another seed another."""

    def text(seed: int) -> str:
        return "".join(model.generate(PROMPT, 12, refengine.Sampling(temperature=1.0, top_k=50, seed=seed)))

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_ends_with_the_context(model: refengine.Model) -> None:
    """Without a limit it goes on until the context is full, the last token needing no place in it."""
    n_prompt = 120
    model.reset()
    sampling = refengine.Sampling(ignore_eos=True)
    tokens = list(model.generate_tokens([7] * n_prompt, None, sampling))

    assert len(tokens) == model.context.n_ctx_seq - n_prompt + 1


def test_stops_at_the_end() -> None:
    """A token that ends a generation ends the text and is not shown; nor are halves of characters."""
    tokenizer = open_tokenizer(refengine.load(MODEL).gguf)
    assert tokenizer.eos is not None
    é, rest = tokenizer.tokenize("é", add_special=False), tokenizer.tokenize("abc", add_special=False)

    assert "".join(text_of([*rest, tokenizer.eos, *rest], tokenizer)) == "abc"
    assert list(text_of(é, tokenizer)) == ["é"]
    assert len(é) == 1 or list(text_of(é[:1], tokenizer)) == []


def test_cut(model: refengine.Model) -> None:
    """What is cut off is forgotten: going on from there gives the same logits as never having been there."""
    tokens = list(model.tokenize(PROMPT))
    model.logits(tokens)

    assert model.cut(5)
    assert model.n_past == 5
    again = model.evaluate(tokens[5:], all_logits=False)

    assert again == pytest.approx(model.logits(tokens)[-1:], abs=0.03)  # the noise of an F16 cache


def test_no_tokens(model: refengine.Model) -> None:
    """An empty prompt of a model that puts nothing before it is refused."""
    with pytest.raises(ValueError, match="no tokens"):
        next(model.generate("", 3))


def test_what_is_no_model(tmp_path: Path) -> None:
    """An adapter is no model, however many tensors it has."""
    path = write_model(tmp_path / "a.gguf", llama_metadata() | {"general.type": "adapter"}, llama_tensors())

    with pytest.raises(UnsupportedError, match="adapter"):
        refengine.load(path)


@pytest.mark.parametrize("tokens", ["import", b"import", [1.5, 2.0], [[1, 2]], ["1"], 3])
def test_tokens_of_wrong_type(model: refengine.Model, tokens: object) -> None:
    """Text, floats and nested lists are refused as what they are, not rounded to ids."""
    with pytest.raises(TypeError, match=r"tokens are of shape|tokens are a text.*model\.tokenize"):
        model.logits(tokens)  # type: ignore[arg-type]
