"""Models that the engine cannot compute are refused with the reason, not computed wrongly."""

from pathlib import Path

import pytest

import refengine
from ggufphys.errors import UnsupportedError
from ggufphys.gguf.writer import data_bytes, encode_header
from tests.ggufphys.models import llama_metadata, llama_tensors
from tests.refengine import tiny


@pytest.mark.parametrize("name", ["eagle3/own", "dflash", "gemma4-assistant"])
def test_drafts(name: str, tmp_path: Path) -> None:
    """A draft goes on from what its target computed, whether or not it has all weights of its own."""
    path = tiny.write(tmp_path / "draft.gguf", name)

    with pytest.raises(UnsupportedError, match=r"draft\.gguf: a draft model"):
        refengine.load(path)


def test_what_llama_cpp_dies_of(tmp_path: Path) -> None:
    """A way of running that llama.cpp aborts in is refused here too."""
    path = tiny.write(tmp_path / "plm.gguf", "plm")

    with pytest.raises(ValueError, match=r"plm\.gguf: llama\.cpp aborts.*expected flash_attn off"):
        refengine.load(path)


def test_caches_that_llama_cpp_does_not_make(tmp_path: Path) -> None:
    """Types of caches that llama.cpp refuses for the model are refused here too."""
    path = tiny.write(tmp_path / "mla.gguf", "mistral4")

    with pytest.raises(ValueError, match=r"mla\.gguf: .*one compressed row and does not support different types"):
        refengine.load(path, type_k="f16", type_v="f32")


def test_other_byte_order(tmp_path: Path) -> None:
    """Weights whose bytes lie the other way round are refused, not read as numbers that they are not."""
    tensors = llama_tensors()
    header = encode_header(llama_metadata(), tensors, byte_order="big")
    (tmp_path / "turned.gguf").write_bytes(header + bytes(data_bytes(tensors)))

    with pytest.raises(UnsupportedError, match=r"turned\.gguf: its weights are big-endian, unlike this machine"):
        refengine.load(tmp_path / "turned.gguf")
