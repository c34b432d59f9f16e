"""How a text is cut before its bytes are merged."""

import pytest
from hypothesis import given, settings

from refengine.text.pretokenizers import PRE_TOKENIZERS, TABLE
from refengine.text.split import split
from tests.refengine.text.vocabularies import texts


@settings(max_examples=50, deadline=None, database=None)
@given(texts())
def test_nothing_is_lost(text: str) -> None:
    """However a text is cut, its pieces are the text, and none is empty."""
    for row in TABLE:
        pieces = split(text, row.expressions)

        assert "".join(pieces) == text
        assert all(pieces)


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt-2", "I'm  here, 1234!\n", ["I", "'m", " ", " here", ",", " 1234", "!", "\n"]),
        ("llama-bpe", "I'M  here, 1234!\n", ["I", "'M", " ", " here", ",", " ", "123", "4", "!\n"]),
        ("qwen2", "a12\n\nb", ["a", "1", "2", "\n\n", "b"]),
        ("afmoe", "x1234567", ["x", "1", "234", "567"]),
        ("kimi-k2", "漢字kana漢", ["漢字", "kana", "漢"]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
        ("", "price: $12", ["price", ":", " ", "$", "12"]),
    ],
)
def test_known_cuts(name: str, text: str, pieces: list[str]) -> None:
    """Some texts and their pieces, which the expressions say."""
    assert split(text, PRE_TOKENIZERS[name].expressions) == pieces
