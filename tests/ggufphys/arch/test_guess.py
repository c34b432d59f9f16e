"""Guesses about architectures without a row: models of known ones under a name that nobody knows."""

from pathlib import Path

import pytest

from ggufphys import GGUFError, open_gguf
from ggufphys.arch.anatomy import anatomy_of, kinds
from ggufphys.arch.guess import guess
from ggufphys.memory.predict import Predictor
from scripts.check_guesses import renamed
from tests import archs

PLAIN = ("llama", "qwen3", "qwen3moe", "granite", "mistral3", "phi3", "glm4", "smollm3")
WINDOWS = ("gemma3", "olmo2", "lfm2")  # in layers that llama.cpp's code knows, and the file does not say
OTHERS = ("qwen35", "mamba2", "rwkv7", "falcon-h1", "deepseek2", "kimi-linear")


@pytest.mark.parametrize("name", PLAIN + OTHERS + WINDOWS)
def test_what_is_kept_is_read_off_tensors(name: str, tmp_path: Path) -> None:
    """Caches and states of models that nobody knows are as large as llama.cpp's, by their tensors; or larger."""
    with open_gguf(renamed(name, tmp_path / "m.gguf")) as gguf:
        guessed = guess(gguf)
        predictor = Predictor(gguf, guessed=(guessed.row, guessed.h))
        rows = [
            (predictor.predict(params), row)
            for params, row in zip(archs.GRID[:4], archs.records()[name].rows, strict=False)
            if not isinstance(row, str)
        ]
    assert rows
    for memory, (_, context_bytes, compute_bytes) in rows:
        assert memory.context_bytes == context_bytes or (name in WINDOWS and memory.context_bytes > context_bytes)
        assert set(memory.basis.values()) == {"estimate"}
        if name in PLAIN:
            assert memory.compute_bytes == pytest.approx(compute_bytes, rel=0.3)


def test_parts_are_told(tmp_path: Path) -> None:
    """Heads, experts, recurrences and norms are told by name, with the number of layers that have them."""
    with open_gguf(renamed("qwen35moe", tmp_path / "m.gguf")) as gguf:
        found = list(kinds(anatomy_of(gguf)))
    assert ("recurrent", "gated delta net, keeps 14,240 elements a sequence", 4) in found
    assert ("feed-forward", "2 of 4 experts, 96 wide, gated, one of 64 shared", 5) in found
    assert any(what == "attention" and "4 heads over 2 of keys and values" in text for what, text, _ in found)
    assert any(what == "norms" and "of query and key heads" in text for what, text, _ in found)


def test_no_language_model(tmp_path: Path) -> None:
    """Without layers or an embedding of tokens nothing is guessed."""
    with open_gguf(renamed("wavtokenizer-dec", tmp_path / "m.gguf")) as gguf, pytest.raises(GGUFError, match="blk.N"):
        guess(gguf)
