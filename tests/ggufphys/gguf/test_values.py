"""Arrays of metadata as a Python user meets them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ggufphys import GGUFError, open_gguf
from ggufphys.gguf import GGUFArray, GGUFFile
from ggufphys.gguf.reader import parse_header
from ggufphys.gguf.values import ByteOrder
from ggufphys.gguf.writer import encode_header

WORDS = ("<s>", "a", "bc", "", "Ünïcode")
SCORES = (0.5, -1.0, 2.0, 0.0, 8.25)
SLICES = [slice(None), slice(1, 3), slice(-2, None), slice(None, None, 2), slice(None, None, -1), slice(4, 0, -3)]


@pytest.fixture
def gguf(tmp_path: Path) -> GGUFFile:
    """A file with an array of strings and one of numbers."""
    path = tmp_path / "arrays.gguf"
    path.write_bytes(encode_header({"general.architecture": "llama", "words": list(WORDS), "scores": list(SCORES)}, []))
    return open_gguf(path)


def array(gguf: GGUFFile, key: str) -> GGUFArray:
    """The array of a key."""
    found = gguf.get_array(key)
    assert found is not None
    return found


@pytest.mark.parametrize(("key", "values"), [("words", WORDS), ("scores", SCORES)])
def test_array_is_a_sequence(gguf: GGUFFile, key: str, values: tuple[str | float, ...]) -> None:
    """An array has what every sequence has: length, indices from both ends, slices, search, reversal."""
    found = array(gguf, key)

    assert isinstance(found, Sequence)
    assert tuple(found) == values
    assert [found[i] for i in range(-len(values), len(values))] == [*values, *values]
    assert tuple(reversed(found)) == values[::-1]
    assert values[2] in found
    assert found.index(values[2]) == 2


@pytest.mark.parametrize("key", ["words", "scores"])
@pytest.mark.parametrize("part", [*SLICES, slice(3, 3), slice(9, 99), slice(None, None, 7)], ids=str)
def test_slices(gguf: GGUFFile, key: str, part: slice) -> None:
    """A slice is the tuple that the same slice of all values is."""
    found = array(gguf, key)

    assert found[part] == tuple(found)[part]


def test_wrong_indices_speak(gguf: GGUFFile) -> None:
    """An index out of range or of another type says which array, what was asked for, and what will do."""
    words = array(gguf, "words")

    with pytest.raises(TypeError, match=r"'words'.*whole numbers and slices, not by str 'a'"):
        words["a"]  # type: ignore[call-overload]
    with pytest.raises(IndexError, match="'words': index 5 of an array of 5"):
        words[5]


def test_repr_is_short(gguf: GGUFFile) -> None:
    """The repr names key, length and type, shows how it begins, and works for a closed file."""
    words, scores = array(gguf, "words"), array(gguf, "scores")

    assert repr(words) == "<GGUFArray words: 5 x STRING ['<s>', 'a', 'bc', ...]>"
    assert repr(scores) == "<GGUFArray scores: 5 x FLOAT32 [0.5, -1.0, 2.0, ...]>"
    gguf.close()
    assert repr(words) == "<GGUFArray words: 5 x STRING [...]>"


def test_slice_of_broken_strings(tmp_path: Path) -> None:
    """Bytes of an element that are not UTF-8 are escaped, as everywhere."""
    path = tmp_path / "broken.gguf"
    header = encode_header({"general.architecture": "llama", "words": ["good", "XX", "well"]}, [])
    path.write_bytes(header.replace(b"XX", b"\xff\xfe"))
    with open_gguf(path) as gguf:
        words = array(gguf, "words")

        assert words[:] == tuple(words) == ("good", r"\xff\xfe", "well")
        assert words[1] == r"\xff\xfe"


@pytest.mark.parametrize(("version", "byte_order"), [(1, "little"), (3, "little"), (3, "big")])
def test_all_bytes_are_those_that_are_iterated(version: int, byte_order: ByteOrder) -> None:
    """All strings at once are what iterating gives, in every layout of lengths, long and empty strings among them."""
    texts = [*WORDS, "", "x" * 70_000, "\0" * 9]
    header = parse_header(encode_header({"words": texts}, [], version=version, byte_order=byte_order), "words")
    words = header.metadata["words"]

    assert isinstance(words, GGUFArray)
    assert words.all_bytes() == list(words.iter_bytes()) == [text.encode() for text in texts]


def test_a_file_that_is_changed_while_it_is_open(tmp_path: Path) -> None:
    """Another file's bytes where strings were are an error that says so, not struct's."""
    path = tmp_path / "m.gguf"
    path.write_bytes(encode_header({"words": list(WORDS)}, []))
    with open_gguf(path) as gguf:
        words = array(gguf, "words")
        with path.open("r+b") as file:
            file.seek(words.offset)
            file.write(b"\xf0" * words.nbytes)
        for read in (words.all_bytes, lambda: list(words.iter_bytes())):
            with pytest.raises(GGUFError, match="'words': its strings are not where they were: the file was changed"):
                read()
