"""The reader gives back what was written, in every version, byte order and alignment."""

import struct
from pathlib import Path
from typing import Any

import gguf as reference
import pytest

from ggufphys import GGUFError, TruncatedError, open_gguf
from ggufphys.gguf import GGMLType, GGUFArray, parse_header
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.gguf.values import ByteOrder, ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, WriteValue, encode_header
from tests.ggufphys.gguf.files import METADATA, TENSORS, tiny


def plain(value: object) -> object:
    """Arrays and typed values as the Python values they hold."""
    if isinstance(value, Typed):
        value = value.value
    return list(value) if isinstance(value, GGUFArray | list) else value


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("alignment", [8, 32, 128])
def test_round_trip(version: int, byte_order: ByteOrder, alignment: int) -> None:
    """What was written is read back, whatever the version, byte order and alignment."""
    header = parse_header(tiny(version=version, byte_order=byte_order, alignment=alignment), "tiny")

    read = {key: plain(value) for key, value in header.metadata.items() if key != "general.alignment"}
    assert {key: plain(value) for key, value in METADATA.items()} == read
    assert [(t.name, t.ne, t.ggml_type, t.nbytes) for t in TENSORS] == [
        (t.name, t.ne, t.ggml_type, t.nbytes) for t in header.tensors
    ]
    assert (version, byte_order, alignment) == (header.version, header.byte_order, header.alignment)
    assert all(t.offset % alignment == 0 for t in header.tensors)


def test_reference_writer(tmp_path: Path) -> None:
    """A file written by the gguf package reads the same here."""
    path = tmp_path / "reference.gguf"
    writer = reference.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ç"])
    writer.add_array("some.floats", [0.5, 1.5])
    writer.add_bool("some.flag", False)
    writer.add_custom_alignment(64)
    import numpy as np

    writer.add_tensor("x.weight", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with open_gguf(path) as gguf:
        assert gguf.architecture == "llama"
        assert gguf.metadata["llama.block_count"] == 3
        assert list(gguf.get_array("tokenizer.ggml.tokens") or ()) == ["a", "b", "ç"]
        assert gguf.metadata["some.flag"] is False
        (tensor,) = gguf.tensors
        assert (tensor.shape, tensor.nbytes, gguf.missing_bytes) == ((2, 32), 256, 0)
        assert np.frombuffer(gguf.tensor_data(tensor), np.float32).tolist() == list(range(64))


def test_reference_reader(tmp_path: Path) -> None:
    """A file written here reads the same with the gguf package."""
    path = tmp_path / "ours.gguf"
    path.write_bytes(tiny())
    reader = reference.GGUFReader(path)

    assert reader.get_field("general.name").contents() == "tiny"
    assert reader.get_field("b.texts").contents() == ["", "one", "zwei", "三"]
    assert reader.get_field("a.i64").contents() == -(1 << 40)
    found = [(t.name, tuple(int(n) for n in t.shape), t.n_bytes) for t in reader.tensors]
    assert [(t.name, t.ne, t.nbytes) for t in TENSORS] == found


def test_type_table() -> None:
    """Every type of the pinned ggml has the block and byte size that the gguf package gives it."""
    ours = {t.value: (s.block_size, s.type_size) for t, s in SIZES.items()}
    theirs = {t.value: size for t, size in reference.GGML_QUANT_SIZES.items() if t.value in ours}
    del theirs[GGMLType.Q8_1.value]  # the package still has the struct with two floats; ggml's has two halves

    assert set(GGMLType) == set(SIZES)
    assert {number: ours[number] for number in theirs} == theirs


def test_type_table_against_ggml(ggml_type_sizes: dict[int, tuple[int, int]]) -> None:
    """Every type that the installed ggml knows has a row here, with ggml's own sizes."""
    assert {t.value: (s.block_size, s.type_size) for t, s in SIZES.items()} == ggml_type_sizes


def test_arrays_are_lazy() -> None:
    """An array is decoded when asked for, by index, from either end, or whole."""
    array = parse_header(tiny(), "tiny").metadata["b.texts"]

    assert isinstance(array, GGUFArray)
    assert (len(array), array[1], array[-1], list(array)) == (4, "one", "三", ["", "one", "zwei", "三"])
    with pytest.raises(IndexError, match="index 4"):
        array[4]


def test_unknown_type_is_named_not_fatal() -> None:
    """A tensor type from the future leaves the rest readable; its size is unknown and a note says so."""
    data = bytearray(tiny())
    at = data.index(b"blk.0.attn_norm.weight") + len(b"blk.0.attn_norm.weight") + 4 + 8
    data[at : at + 4] = struct.pack("<I", 99)
    header = parse_header(bytes(data), "tiny")

    assert [t.type_name for t in header.tensors] == ["Q4_K", "type 99?", "Q8_0"]
    assert header.tensors[1].nbytes is None
    assert "1 of 3 tensors" in header.notes[0]


def test_header_only_and_partial(tmp_path: Path) -> None:
    """A file without (all of) its tensor data is read; what is missing is said, and reading the data is refused."""
    whole = tiny()
    path = tmp_path / "part.gguf"
    path.write_bytes(whole[:-100])
    with open_gguf(path) as gguf:
        assert gguf.missing_bytes == 100 - (32 - 204 % 32) % 32
        assert "tensor data is missing" in gguf.notes[-1]
        assert len(gguf.tensor_data(gguf.tensors[0])) == 432
        with pytest.raises(GGUFError, match="unfinished download"):
            gguf.tensor_data(gguf.tensors[2])


def split(tmp_path: Path, count: int = 3) -> list[Path]:
    """A model split into shards with one tensor each."""
    paths = []
    for number in range(count):
        extra: dict[str, WriteValue] = {
            "split.no": Typed(number, ValueType.UINT16),
            "split.count": Typed(count, ValueType.UINT16),
            "split.tensors.count": count,
        }
        metadata = {**(METADATA if number == 0 else {}), **extra}
        header = encode_header(metadata, [TensorSpec(f"t{number}", (32,), GGMLType.F32)])
        path = tmp_path / f"m-{number + 1:05d}-of-{count:05d}.gguf"
        path.write_bytes(header + bytes(128))
        paths.append(path)
    return paths


def test_split(tmp_path: Path) -> None:
    """Any shard opens the whole model."""
    paths = split(tmp_path)
    for path in paths:
        with open_gguf(path) as gguf:
            assert [t.name for t in gguf.tensors] == ["t0", "t1", "t2"]
            assert [t.shard for t in gguf.tensors] == [0, 1, 2]
            assert (gguf.architecture, gguf.missing_bytes) == ("llama", 0)
            assert gguf.file_bytes == sum(p.stat().st_size for p in paths)


def test_split_incomplete(tmp_path: Path) -> None:
    """A missing, renamed or foreign shard is named."""
    paths = split(tmp_path)
    foreign = paths[1].read_bytes()
    paths[1].unlink()
    with pytest.raises(GGUFError, match="1 of 3 shards are missing beside it: m-00002-of-00003.gguf"):
        open_gguf(paths[0])
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(GGUFError, match="it says it is shard 3 of 3, its name says 2 of 3"):
        open_gguf(paths[0])
    renamed = tmp_path / "renamed.gguf"
    renamed.write_bytes(foreign)
    with pytest.raises(GGUFError, match="expected a name ending in -00001-of-00003"):
        open_gguf(renamed)


@pytest.mark.parametrize(
    ("metadata", "tensors", "kind"),
    [
        ({"general.architecture": "llama"}, True, "model"),
        ({"general.architecture": "llama", "tokenizer.ggml.model": "gpt2"}, False, "vocab"),
        ({"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}, True, "adapter"),
        ({"general.architecture": "clip", "general.type": "mmproj"}, True, "mmproj"),
        ({"general.type": "imatrix", "imatrix.chunk_count": 5}, True, "imatrix"),
        ({"general.architecture": "controlvector"}, True, "controlvector"),
        ({}, False, "metadata"),
    ],
)
def test_kinds(tmp_path: Path, metadata: dict[str, Any], tensors: bool, kind: str) -> None:
    """What a file is for is told from its metadata."""
    path = tmp_path / "file.gguf"
    path.write_bytes(encode_header(metadata, TENSORS if tensors else ()))
    with open_gguf(path) as gguf:
        assert gguf.kind == kind


def test_wrong_type_of_key() -> None:
    """A key of another type than asked for is named with what it holds."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.gguf"
        path.write_bytes(tiny())
        with open_gguf(path) as gguf:
            for key, get in (
                ("general.name", lambda key: gguf.get_int(key, 0)),
                ("a.f32", lambda key: gguf.get_str(key, "")),
                ("a.i32", lambda key: gguf.get_bool(key, False)),
            ):
                with pytest.raises(GGUFError, match=f"key '{key}' is .*, expected"):
                    get(key)
            with pytest.raises(GGUFError, match="expected an array"):
                gguf.get_array("a.i32")


def test_truncated_error_says_what_would_help() -> None:
    """`needed_bytes` is more than there was, and giving that much gets further."""
    whole = tiny()
    have = 40
    for _ in range(10_000):
        try:
            parse_header(whole[:have], "tiny")
            break
        except TruncatedError as error:
            assert error.needed_bytes > have
            have = error.needed_bytes
    else:
        pytest.fail("never enough")
    assert have <= len(whole)
