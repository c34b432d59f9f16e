"""Which tokens does a text become? Those of llama.cpp under the model's own settings, wherever a text is judged."""

import os
from pathlib import Path

import pytest

from bench.quality.texts import Setting, read
from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from refengine.text.llama import LlamaTokenizer
from refengine.text.open import open_tokenizer
from tests.bench.quality.settings import with_setting

TEXT = "def f(x):\n    return x + 1  # <|endoftext|> <s> Grüße, 世界\n"
REAL = sorted(Path(folder).glob("*.gguf")) if (folder := os.environ.get("GGUFPHYS_MODELS")) else []
"""Real models, by the folder that GGUFPHYS_MODELS names: none are in the repository."""


def assert_tokens_are_llama_cpps(path: Path) -> tuple[int, ...]:
    with open_gguf(path) as gguf:
        expected = LlamaTokenizer(gguf).tokenize(TEXT, add_special=True, parse_special=False)
        assert open_tokenizer(gguf).tokenize(TEXT, add_special=True, parse_special=False) == expected
    reading = read(path, Setting(text=TEXT, n_ctx=4))
    assert tuple(reading.windows.tokens.reshape(-1)) == expected[: len(expected) // 4 * 4]
    return expected


@pytest.mark.parametrize("adds_bos", [True, False])
def test_beginning_is_the_models_own_setting(tmp_path: Path, adds_bos: bool) -> None:
    """A beginning token stands in front of the text, and of each window, only where the file asks for one."""
    path = with_setting(MODEL, tmp_path / "model.gguf", "tokenizer.ggml.add_bos_token", adds_bos)
    with open_gguf(path) as gguf:
        bos = gguf.get_int("tokenizer.ggml.bos_token_id", -1)

    assert (assert_tokens_are_llama_cpps(path)[0] == bos) == adds_bos
    windows = read(path, Setting(text=TEXT, n_ctx=4)).windows
    assert all((windows.read[:, 0] == bos) == adds_bos)
    assert (windows.read[:, 1:] == windows.tokens[:, 1:]).all()


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="GGUFPHYS_MODELS names no folder of GGUF files")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_tokens_of_real_models(path: Path) -> None:
    """Published models, with their vocabularies and settings, get llama.cpp's tokens from both of our tokenizers."""
    assert_tokens_are_llama_cpps(path)
