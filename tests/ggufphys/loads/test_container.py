"""The file's own form."""

from pathlib import Path

import pytest

from ggufphys import check_loads, open_gguf
from ggufphys.gguf import GGMLType
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import TensorSpec, Typed, data_bytes, encode_header
from tests import archs
from tests.ggufphys.gguf.remote_files import shards
from tests.ggufphys.loads.header import of_header
from tests.load_oracle import LoadOracle


def _parts() -> tuple[dict[str, object], list[TensorSpec]]:
    return dict(archs.models()["llama"].metadata), list(archs.records()["llama"].tensors)


def test_versions_orders_and_alignments(tmp_path: Path) -> None:
    """GGUF v2 and any power of two load; v1, the other byte order and an alignment of another type do not."""
    metadata, tensors = _parts()
    assert of_header(tmp_path, encode_header(metadata, tensors, version=2)) == ()  # type: ignore[arg-type]
    for alignment in (8, 16, 128):
        assert of_header(tmp_path, encode_header(metadata, tensors, alignment=alignment)) == ()  # type: ignore[arg-type]
    (old,) = of_header(tmp_path, encode_header(metadata, tensors, version=1))  # type: ignore[arg-type]
    assert (old.found, old.expected) == ("GGUF v1", "v2 or v3")
    (big,) = of_header(tmp_path, encode_header(metadata, tensors, byte_order="big"))  # type: ignore[arg-type]
    assert (big.found, big.expected) == ("big", "little")
    odd = {**metadata, "general.alignment": Typed(32, ValueType.UINT64)}
    (reason,) = of_header(tmp_path, encode_header(odd, tensors))  # type: ignore[arg-type]
    assert (reason.where, reason.found, reason.expected) == ("general.alignment", "u64", "u32")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.name", b"caf\xe9"),  # as Latin-1 has it
        ("tokenizer.chat_template", b"\xff\xfe"),
        ("general.caf\xe9", b"any"),
        ("general.architecture", b"llama\0 and more"),
    ],
)
def test_strings_are_cs(tmp_path: Path, key: str, value: bytes) -> None:
    """Texts that are not UTF-8 load, and a zero byte ends a text, as in llama.cpp."""
    metadata, tensors = _parts()
    name, text = key.replace("\xe9", "~"), "~" * len(value)
    header = encode_header({**metadata, name: text}, tensors)  # type: ignore[dict-item]
    path = tmp_path / "m.gguf"
    header = header.replace(name.encode(), key.encode("latin-1")).replace(text.encode(), value)
    path.write_bytes(header + bytes(data_bytes(tensors)))
    with open_gguf(path) as gguf:
        assert check_loads(gguf) == ()
    pytest.importorskip("llama_cpp")
    with LoadOracle() as oracle:
        assert oracle.ask(path).accepted


def test_tensors_follow_each_other(tmp_path: Path) -> None:
    """A tensor elsewhere than where the one before it ends is named, and so is a name of 64 bytes."""
    metadata, tensors = _parts()
    header = bytearray(encode_header(metadata, tensors))  # type: ignore[arg-type]
    name = tensors[-1].name.encode()
    at = header.rindex(name) + len(name) + 4 + 8 * len(tensors[-1].ne) + 4
    header[at : at + 8] = (int.from_bytes(header[at : at + 8], "little") + 32).to_bytes(8, "little")
    (reason,) = of_header(tmp_path, bytes(header))
    assert (reason.where, reason.what) == (tensors[-1].name, "a tensor that does not begin where it should")
    more = [*tensors, TensorSpec("x" * 64, (32,), GGMLType.F32)]
    reasons = of_header(tmp_path, encode_header(metadata, more))  # type: ignore[arg-type]
    assert any(reason.found == "a name of 64 bytes" for reason in reasons)


@pytest.mark.parametrize(
    ("number", "key", "value", "words"),
    [
        (0, "split.tensors.count", Typed(20, ValueType.UINT16), "found u16, expected i32"),
        (0, "split.tensors.count", None, "found none, expected i32"),
        (0, "split.no", None, "found none, expected u16"),
        (0, "split.no", Typed(0, ValueType.UINT32), "found u32, expected u16"),
        (2, "split.no", None, "found none, expected u16"),
        (1, "general.name", Typed("any", ValueType.STRING), ""),
        (1, "split.count", None, ""),
        (2, "split.count", Typed(2, ValueType.UINT16), ""),
        (2, "split.count", Typed("three", ValueType.STRING), ""),
    ],
)
def test_what_shards_say(tmp_path: Path, number: int, key: str, value: Typed | None, words: str) -> None:
    """Each shard says which it is, and the first how many tensors there are, in the types that llama.cpp reads."""
    for name, data in shards("m", {number: {key: value}}).items():
        (tmp_path / name).write_bytes(data)
    first = tmp_path / "m-00001-of-00003.gguf"
    with open_gguf(first) as gguf:
        reasons = check_loads(gguf)
    assert [key in str(reason) and words in str(reason) for reason in reasons] == ([True] if words else [])
    pytest.importorskip("llama_cpp")
    with LoadOracle() as oracle:
        assert oracle.ask(first).accepted is not bool(words)
