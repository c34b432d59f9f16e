"""Whether each text of a vocabulary is there once, told from bytes as they lie."""

import random
import struct

import pytest

from ggufphys.gguf import GGUFArray
from ggufphys.gguf.values import ValueType
from ggufphys.loads.distinct import are_distinct


def strings(texts: list[bytes]) -> GGUFArray:
    """An array of these."""
    raw = b"".join(struct.pack("<Q", len(text)) + text for text in texts)
    return GGUFArray(
        element_type=ValueType.STRING, length=len(texts), offset=3, nbytes=len(raw), byte_order="little",
        length_format="Q", key="tokens", buffer=b"abc" + raw + b"\1\0\0\0",
    )  # fmt: skip


@pytest.mark.parametrize("n_long", [0, 1, 40])
@pytest.mark.parametrize("first", [b"a", b"b" * 31, b"c" * 32, b"d" * 200])
def test_distinct_texts_are_told(first: bytes, n_long: int) -> None:
    """Short texts and some longer ones, the first and the last among them, are known to be distinct."""
    texts = [first, *(b"word %d" % i for i in range(500)), *(b"%d" % i * 60 for i in range(n_long))]
    random.Random(n_long).shuffle(texts)

    assert are_distinct(strings([first, *(text for text in texts if text != first)]))
    assert are_distinct(strings([*(text for text in texts if text != first), first]))
    assert are_distinct(strings([]))


@pytest.mark.parametrize("twice", [b"a", b"b" * 31, b"c" * 32, b"d" * 200, b"e" * 300, b"", b"\0", b"\5" + bytes(7)])
def test_what_is_there_twice_is_never_distinct(twice: bytes) -> None:
    """One text twice, beside each other or not, behind and in front of short and long ones, is found every time."""
    others = [b"word", b"l" * 40, b"w", b"m" * 35]
    for i in range(len(others) + 1):
        for j in range(i, len(others) + 1):
            assert not are_distinct(strings([*others[:i], twice, *others[i:j], twice, *others[j:]]))


@pytest.mark.parametrize("alphabet", [b"a", b"\0a", b"\0\1\5", b"\1\2"])
def test_texts_that_look_like_lengths(alphabet: bytes) -> None:
    """Texts of zeros and lengths are called distinct only where they are."""
    chance = random.Random(alphabet)
    found = 0
    for _ in range(3000):
        sizes = chance.choices((0, 1, 2, 3, 4, 5, 7, 8, 12, 31, 32, 40, 254, 255, 256, 257, 261, 300, 1281), k=5)
        texts = [bytes(chance.choices(alphabet, k=n)) for n in sizes]
        if are_distinct(strings(texts)):
            assert len(set(texts)) == len(texts)
            found += 1
    assert found > 100 or 0 in alphabet
