"""Vocabularies that repeat are stepped over at once, and never mistaken for each other."""

from pathlib import Path

import pytest

from ggufphys import GGUFError, open_gguf
from ggufphys.gguf import Header, parse_header
from ggufphys.gguf.known import MAX_ARRAYS, KnownArrays
from ggufphys.gguf.values import ByteOrder, ValueType
from ggufphys.gguf.writer import Typed, encode_header
from tests.ggufphys.models import llama_metadata, llama_tensors


def header(tokens: list[str], *, version: int = 3, byte_order: ByteOrder = "little", name: str = "a") -> bytes:
    """A model with these tokens, and a tensor table behind them."""
    keys = {
        **llama_metadata(),
        "general.name": name,
        "tokenizer.ggml.tokens": Typed(tokens, ValueType.STRING),
        "tokenizer.ggml.merges": Typed(tokens[::-1], ValueType.STRING),
    }
    return encode_header(keys, llama_tensors(), version=version, byte_order=byte_order)


def contents(parsed: Header) -> tuple[object, ...]:
    """What a header says, arrays decoded."""
    keys = {k: v if isinstance(v, int | float | str) else tuple(v) for k, v in parsed.metadata.items()}
    return keys, parsed.tensors, parsed.data_offset


TOKENS = [f"token {i}" for i in range(1500)]


def variants() -> list[bytes]:
    """Headers whose vocabularies are equal, begin alike, have as many tokens, are laid out otherwise."""
    return [
        header(TOKENS),
        header(TOKENS, name="a much longer name"),
        header([*TOKENS[:-1], "another one"]),
        header([*TOKENS[:700], "longer than before", *TOKENS[701:]]),
        header(TOKENS[:-1]),
        header(TOKENS, version=1),
        header(TOKENS, version=2),
        header(TOKENS, byte_order="big"),
        header(TOKENS[:10]),
    ]


def test_same_contents() -> None:
    """Whatever was read before, a header says what it says alone."""
    alone = [contents(parse_header(data, "x")) for data in variants()]
    known = KnownArrays()
    for _ in range(2):
        assert [contents(parse_header(data, "x", known=known)) for data in variants()] == alone


def test_recognised() -> None:
    """The second file with a vocabulary is recognised: nothing is remembered twice."""
    known = KnownArrays()
    data = header(TOKENS)
    start = data.index(b"token 0") - 8
    kind = ("tokenizer.ggml.tokens", len(TOKENS), "<", "Q")

    assert known.length_at(data, start, kind) is None
    parse_header(data, "x", known=known)
    assert known.length_at(data, start, kind) == sum(8 + len(t) for t in TOKENS)
    assert known.length_at(data, start, ("other", *kind[1:])) is None
    for number in range(MAX_ARRAYS):
        known.remember(b"x" * 10, 0, 10, number)
    assert known.length_at(data, start, kind) is None


@pytest.mark.parametrize("missing", [1, 1000, 20_000])
def test_truncated(missing: int) -> None:
    """A file that ends within a vocabulary that is known is still truncated."""
    data = header(TOKENS)
    known = KnownArrays()
    parse_header(data, "x", known=known)
    with pytest.raises(GGUFError, match="truncated"):
        parse_header(data[: data.index(b"token 1499") - missing], "x", known=known)


def test_files(tmp_path: Path) -> None:
    """Opening files with the same `known` gives the same models."""
    known = KnownArrays()
    for number, data in enumerate(variants()):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data)
        with open_gguf(path, known=known) as quick, open_gguf(path) as slow:
            assert quick.tensors == slow.tensors
            tokens = (quick.get_array("tokenizer.ggml.tokens"), slow.get_array("tokenizer.ggml.tokens"))
            assert tuple(tokens[0] or ()) == tuple(tokens[1] or ())
