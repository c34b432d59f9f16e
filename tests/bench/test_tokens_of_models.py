"""Which tokens does a text become? Those of llama.cpp under the model's own settings, wherever a text is judged."""

import os
from pathlib import Path

import pytest

from bench.perplexity import Scorer
from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from refengine.text.llama import LlamaTokenizer
from refengine.text.open import open_tokenizer
from tests.bench.settings import with_setting

TEXT = "def f(x):\n    return x + 1  # <|endoftext|> <s> Grüße, 世界\n"
REAL = sorted(Path(folder).glob("*.gguf")) if (folder := os.environ.get("GGUFPHYS_MODELS")) else []
"""Real models, by the folder that GGUFPHYS_MODELS names: none are in the repository."""


def assert_tokens_are_llama_cpps(path: Path) -> tuple[int, ...]:
    with open_gguf(path) as gguf, Scorer(path, n_ctx=64) as scorer:
        expected = LlamaTokenizer(gguf).tokenize(TEXT, add_special=True, parse_special=False)
        assert tuple(scorer.tokenize(TEXT).tolist()) == expected
        assert open_tokenizer(gguf).tokenize(TEXT, add_special=True, parse_special=False) == expected
    return expected


@pytest.mark.parametrize("adds_bos", [True, False])
def test_beginning_is_the_models_own_setting(tmp_path: Path, adds_bos: bool) -> None:
    """A beginning token stands in front of the text only where the file asks for one."""
    path = with_setting(MODEL, tmp_path / "model.gguf", "tokenizer.ggml.add_bos_token", adds_bos)
    with open_gguf(path) as gguf:
        bos = gguf.get_int("tokenizer.ggml.bos_token_id", -1)

    assert (assert_tokens_are_llama_cpps(path)[0] == bos) == adds_bos


@pytest.mark.parametrize("adds_bos", [True, False])
def test_no_token_is_judged_that_the_settings_do_not_make(tmp_path: Path, adds_bos: bool) -> None:
    """Without a beginning token the text's first token is given, not judged; with one it is judged."""
    path = with_setting(MODEL, tmp_path / "model.gguf", "tokenizer.ggml.add_bos_token", adds_bos)
    with Scorer(path, n_ctx=64) as scorer:
        plain = scorer.vocab.tokenize(TEXT, add_special=False, parse_special=False)

        assert len(scorer.log_probabilities(scorer.tokenize(TEXT))) == len(plain) - 1 + adds_bos


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="GGUFPHYS_MODELS names no folder of GGUF files")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_tokens_of_real_models(path: Path) -> None:
    """Published models, with their vocabularies and settings, get llama.cpp's tokens from both of our tokenizers."""
    assert_tokens_are_llama_cpps(path)
