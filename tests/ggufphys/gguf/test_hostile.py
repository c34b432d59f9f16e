"""Whatever bytes a file holds, the reader answers with a header or a GGUFError, quickly and in little memory."""

import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufphys import GGUFError, open_gguf
from ggufphys.gguf import GGMLType, GGUFArray, parse_header
from ggufphys.gguf.reader import Header
from ggufphys.gguf.writer import TensorSpec, encode_header
from tests.ggufphys.gguf.files import TENSORS, tiny

SEEDS = [tiny(version=v, byte_order=b) for v in (1, 2, 3) for b in ("little", "big")]
EXTREME = (0, 1, 7, 31, 255, 1 << 16, 1 << 31, 1 << 32, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
MAX_SECONDS = 1.0


def read(data: bytes) -> Header | GGUFError:
    """Parse, and decode every array; anything but a header or a GGUFError fails the test."""
    started = time.perf_counter()
    try:
        header = parse_header(data, "hostile")
        for value in header.metadata.values():
            if isinstance(value, GGUFArray):
                for _ in value:
                    pass
    except GGUFError as error:
        assert str(error)
        return error
    finally:
        # not a benchmark: a bound that only a runaway loop would break
        assert time.perf_counter() - started < MAX_SECONDS
    return header


def mutate(seed: bytes, edits: list[tuple[int, int, int]]) -> bytes:
    """Overwrite stretches of `seed`: (place, width, value)."""
    data = bytearray(seed)
    for place, width, value in edits:
        at = place % len(data)
        data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return bytes(data)


EDITS = st.lists(
    st.tuples(
        st.integers(0, 4000), st.sampled_from([1, 4, 8]), st.one_of(st.sampled_from(EXTREME), st.integers(0, 1 << 64))
    ),
    min_size=1,
    max_size=4,
)


@given(seed=st.sampled_from(SEEDS), edits=EDITS, cut=st.integers(0, 200))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files(seed: bytes, edits: list[tuple[int, int, int]], cut: int) -> None:
    """Bytes, counts and lengths overwritten anywhere, and an end cut off."""
    data = mutate(seed, edits)
    read(data[: len(data) - cut])


@pytest.mark.slow
@given(seed=st.sampled_from(SEEDS), edits=EDITS, cut=st.integers(0, 1500))
@settings(max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_many_mutated_files(seed: bytes, edits: list[tuple[int, int, int]], cut: int) -> None:
    """The same 20,000 times."""
    data = mutate(seed, edits)
    read(data[: len(data) - cut])


@pytest.mark.parametrize("seed", SEEDS, ids=["v1le", "v1be", "v2le", "v2be", "v3le", "v3be"])
def test_every_prefix(seed: bytes) -> None:
    """A file cut at any byte of its header is an error; cut behind it, it is a header."""
    end = parse_header(seed, "whole").data_offset
    table_end = max(i for i in range(end + 1) if isinstance(read(seed[:i]), GGUFError)) + 1
    for length in range(table_end):
        assert isinstance(read(seed[:length]), GGUFError), length
    for length in range(table_end, len(seed), 97):
        assert isinstance(read(seed[:length]), Header), length


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_flipped(flip: int) -> None:
    """Any byte of the header changed."""
    seed = SEEDS[4]
    for at in range(parse_header(seed, "whole").data_offset):
        data = bytearray(seed)
        data[at] ^= flip
        read(bytes(data))


def patched(before: bytes, layout: str, value: int, *, seed: bytes = SEEDS[4]) -> bytes:
    """`seed` with a number written right behind `before`."""
    data = bytearray(seed)
    at = data.index(before) + len(before)
    struct.pack_into(layout, data, at, value)
    return bytes(data)


@pytest.mark.parametrize("count", [1 << 20, (1 << 32) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize(
    "where",
    [
        lambda n: SEEDS[4][:8] + struct.pack("<Q", n) + SEEDS[4][16:],  # tensors
        lambda n: SEEDS[4][:16] + struct.pack("<Q", n) + SEEDS[4][24:],  # metadata entries
        lambda n: SEEDS[4][:24] + struct.pack("<Q", n) + SEEDS[4][32:],  # the first key's length
        lambda n: patched(b"general.name" + struct.pack("<I", 8), "<Q", n),  # a string value's length
        lambda n: patched(b"b.ints" + struct.pack("<II", 9, 5), "<Q", n),  # an array of numbers
        lambda n: patched(b"b.texts" + struct.pack("<II", 9, 8), "<Q", n),  # an array of strings
        lambda n: patched(b"b.texts" + struct.pack("<IIQQ", 9, 8, 4, 0), "<Q", n),  # a string inside one
    ],
    ids=["n_tensors", "n_kv", "key", "string", "numbers", "strings", "inner string"],
)
def test_counts_and_lengths(where: Callable[[int], bytes], count: int) -> None:
    """A count or length up to 2^64-1 is refused for what is not there, without allocating for it."""
    tracemalloc.start()
    try:
        outcome = read(where(count))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert isinstance(outcome, GGUFError)
    assert peak < 64 * len(SEEDS[4])


def with_tensors(*tensors: TensorSpec) -> bytes:
    """A file with these tensors in its table."""
    return encode_header({"general.architecture": "llama"}, tensors)


def test_dims_that_overflow() -> None:
    """A shape whose product passes 2^63 is refused, and so is a single such dimension."""
    for ne in ((1 << 32, 1 << 32), (1 << 62, 2), ((1 << 64) - 32,), (1 << 16, 1 << 16, 1 << 16, 1 << 16)):
        outcome = read(with_tensors(TensorSpec("t", ne, GGMLType.F32))) if max(ne) < 1 << 63 else None
        if outcome is None:
            data = bytearray(with_tensors(TensorSpec("t", (32,), GGMLType.F32)))
            at = data.index(b"t\x01\x00\x00\x00") + 5
            struct.pack_into("<Q", data, at, ne[0])
            outcome = read(bytes(data))
        assert isinstance(outcome, GGUFError)
        assert "more than 2^63 elements" in str(outcome)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated: the magic"),
        (b"GGU", "truncated: the magic"),
        (b"GGML" + bytes(100), "not a GGUF file: it starts with b'GGML'"),
        (b"\x00" * 64, "not a GGUF file"),
        (SEEDS[4][:4] + struct.pack("<I", 0) + SEEDS[4][8:], "GGUF version 0"),
        (SEEDS[4][:4] + struct.pack("<I", 4) + SEEDS[4][8:], "GGUF version 4, expected 1 to 3"),
        (SEEDS[4].replace(b"a.u16", b"a.i16"), "duplicate metadata key 'a.i16'"),
        (patched(b"b.ints", "<I", 13), "key 'b.ints' has value type 13, expected 0 to 12"),
        (patched(b"b.ints" + struct.pack("<I", 9), "<I", 9), "an array of arrays"),
        (patched(b"b.ints" + struct.pack("<I", 9), "<I", 77), "key 'b.ints' has value type 77"),
        (with_tensors(TENSORS[0], TENSORS[0]), "duplicate tensor 'token_embd.weight'"),
        (with_tensors(TensorSpec("odd", (33,), GGMLType.Q8_0)), "rows of 33 elements are not whole blocks of Q8_0"),
        (encode_header({"general.alignment": 0}, ()), "general.alignment is 0, expected a power of two"),
        (encode_header({"general.alignment": 24}, ()), "general.alignment is 24, expected a power of two"),
        (encode_header({"general.alignment": "32"}, ()), "general.alignment is '32', expected a power of two"),
        (encode_header({"": 1}, ()), "metadata key 0 is empty"),
    ],
)
def test_messages(data: bytes, message: str) -> None:
    """What is wrong is named: what was found, where, and what was expected."""
    outcome = read(data)

    assert isinstance(outcome, GGUFError)
    assert message in str(outcome)


def test_offsets() -> None:
    """Misaligned and overlapping tensors are refused; a gap is noted, since llama.cpp refuses it."""
    two = (TensorSpec("one", (32,), GGMLType.F32), TensorSpec("two", (32,), GGMLType.F32))
    data = with_tensors(*two)
    at = data.index(b"two") + 3 + 4 + 8 + 4

    def with_offset(offset: int) -> Header | GGUFError:
        return read(data[:at] + struct.pack("<Q", offset) + data[at + 8 :])

    assert "expected a multiple of 32" in str(with_offset(100))
    assert "overlaps tensor 'one', which ends at 128" in str(with_offset(96))
    assert "overlaps" in str(with_offset(0))
    gap = with_offset(256)
    assert isinstance(gap, Header)
    assert "gap before tensor 'two'" in gap.notes[0]


def test_five_dimensions() -> None:
    """More than four dimensions are refused."""
    data = with_tensors(TensorSpec("t", (2, 2, 2, 2, 2), GGMLType.F32))

    assert "5 dimensions, expected at most 4" in str(read(data))


def test_strings_as_llama_cpp_has_them() -> None:
    """Names and texts that are not UTF-8 are no reason to refuse a file, and a zero byte ends each of them."""
    data = SEEDS[4].replace(b"a.text", b"a.te\xe9t").replace("Grüße".encode(), b"Gr\xfc\xdfe\0x")
    metadata = parse_header(data.replace(b"a.i16", b"a.i\0\0"), "tiny").metadata
    assert metadata[r"a.te\xe9t"] == r"Gr\xfc\xdfe"
    assert "a.i" in metadata
    named = with_tensors(TensorSpec("one.ab", (32,), GGMLType.F32)).replace(b"one.ab", b"on\xff.\0b")
    assert parse_header(named, "tiny").tensors[0].name == r"on\xff."


def test_not_files(tmp_path: Path) -> None:
    """An empty file, a directory, a FIFO and a device are named as such, at once."""
    empty = tmp_path / "empty.gguf"
    empty.touch()
    fifo = tmp_path / "fifo.gguf"
    os.mkfifo(fifo)
    for path, message in (
        (empty, "the file is empty"),
        (tmp_path, "a directory"),
        (fifo, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(GGUFError, match=message):
            open_gguf(path)
    with pytest.raises(FileNotFoundError):
        open_gguf(tmp_path / "nowhere.gguf")


def test_many_strings_in_little_memory() -> None:
    """A vocabulary of 200,000 strings is stepped over without making them."""
    data = encode_header({"t": ["x" * 9] * 200_000}, ())
    tracemalloc.start()
    try:
        header = parse_header(data, "vocabulary")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(header.metadata["t"]) == 200_000  # type: ignore[arg-type]
    assert peak < 1_000_000  # the strings would take ten
