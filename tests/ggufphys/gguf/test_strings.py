"""Stepping over many strings at once ends where stepping over each does, whatever the strings and the buffer are."""

import random
import struct

import pytest

from ggufphys.gguf.strings import MANY, step_over

LENGTH = struct.Struct("<Q")


def laid_out(texts: list[bytes]) -> bytes:
    """Strings as a file has them."""
    return b"".join(LENGTH.pack(len(text)) + text for text in texts)


def walk(buffer: bytes, position: int, count: int) -> tuple[int, int]:
    """What `step_over` says, string by string."""
    for i in range(count):
        if position + LENGTH.size > len(buffer):
            return max(position, len(buffer)), count - i
        position += LENGTH.unpack_from(buffer, position)[0] + LENGTH.size
    return position, 0


@pytest.mark.parametrize("longest", [8, 33, 300, 70_000])
@pytest.mark.parametrize("alphabet", [b"a", b"\0", b"\0\1\2\7\x08|(\n"])
def test_ends_where_each_string_ends(longest: int, alphabet: bytes) -> None:
    """Short and long strings, empty ones, such as look like lengths: the end is that of the last."""
    chance = random.Random(longest)
    lengths = [chance.choice((0, 1, 5, 63, 64)) for _ in range(MANY + 300)]
    for i in chance.sample(range(len(lengths)), 40):
        lengths[i] = chance.randint(0, longest)
    whole = b"before" + laid_out([bytes(chance.choices(alphabet, k=n)) for n in lengths]) + b"\0" * 900
    end = len(whole) - 900

    assert step_over(whole, 6, len(lengths), LENGTH) == (end, 0)
    assert step_over(memoryview(whole), 6, MANY, LENGTH) == walk(whole, 6, MANY)
    for cut in (6, 20, *chance.choices(range(end), k=8), end - 1, end):
        assert step_over(whole[:cut], 6, len(lengths), LENGTH) == walk(whole[:cut], 6, len(lengths))


@pytest.mark.parametrize("nbytes", [1 << 31, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("at", [0, 127, 128, MANY - 1])
def test_lengths_that_nothing_has(nbytes: int, at: int) -> None:
    """A length that no buffer has ends the steps as it would end a walk, wherever it stands."""
    texts = laid_out([b"abc"] * at) + LENGTH.pack(nbytes) + laid_out([b"abc"] * (MANY - at - 1))

    assert step_over(texts, 0, MANY, LENGTH) == walk(texts, 0, MANY)
