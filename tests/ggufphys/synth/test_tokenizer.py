"""The made-up vocabulary: any size, all bytes, every merge possible."""

import pytest

from ggufphys.synth.tokenizer import byte_tokens, tokenizer_metadata


@pytest.mark.parametrize("n_vocab", [258, 300, 32000, 262144])
def test_vocabulary(n_vocab: int) -> None:
    """It has exactly the tokens asked for, all different, and each merge joins two tokens into a third."""
    metadata = tokenizer_metadata(n_vocab)
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    assert isinstance(tokens, list)
    assert isinstance(merges, list)
    known = set(byte_tokens())

    assert (len(tokens), len(set(tokens)), len(merges)) == (n_vocab, n_vocab, n_vocab - 258)
    for token, merge in zip(tokens[256:-2], merges, strict=True):
        first, second = merge.split(" ")
        assert first in known
        assert second in known
        assert first + second == token
        known.add(token)


def test_control_tokens() -> None:
    """The last two tokens are control tokens and serve as beginning and end."""
    metadata = tokenizer_metadata(1000)

    assert metadata["tokenizer.ggml.token_type"] == [1] * 998 + [3, 3]
    assert (metadata["tokenizer.ggml.bos_token_id"], metadata["tokenizer.ggml.eos_token_id"]) == (998, 999)


def test_bytes() -> None:
    """Bytes are spelt as GPT-2's vocabulary spells them."""
    tokens = byte_tokens()

    assert len(set(tokens)) == 256
    assert [tokens[b] for b in b" \n\ta~\xe9\x7f"] == ["Ġ", "Ċ", "ĉ", "a", "~", "é", "ġ"]
    assert (tokens[0], tokens[0xAD]) == ("Ā", "Ń")


@pytest.mark.parametrize(("n_vocab", "message"), [(257, "no room for 256 bytes"), (10**6, "more than the 950740")])
def test_impossible_sizes(n_vocab: int, message: str) -> None:
    """A size that cannot be made is refused by number."""
    with pytest.raises(ValueError, match=f"vocabulary of {n_vocab} .*{message}"):
        tokenizer_metadata(n_vocab)
