"""Perplexity through llama.cpp, and the unigram it is held against."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from bench import quality
from bench.corpus import held_out
from bench.perplexity import Scorer
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.errors import GGUFError


@pytest.fixture(scope="module")
def unseen() -> str:
    """One module that the embedded model was not trained on."""
    return next(document.text for document in held_out() if document.name == "copy.py")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    quality.add_arguments(parser)
    return parser.parse_args(arguments)


def test_unigram_of_equal_frequencies_is_their_number() -> None:
    """Eight tokens, equally often, are as perplexing as a fair die of eight sides."""
    assert quality.unigram_perplexity(np.tile(np.arange(8, dtype=np.int32), 5)) == pytest.approx(8)


def test_unigram_weighs_by_frequency() -> None:
    """Frequencies 1/2, 1/4, 1/4 have an entropy of one and a half bits."""
    assert quality.unigram_perplexity(np.array([3, 3, 1, 7], np.int32)) == pytest.approx(2**1.5)


def test_unigram_of_nothing_is_refused() -> None:
    """No tokens have no frequencies."""
    with pytest.raises(ValueError, match="no tokens to judge"):
        quality.unigram_perplexity(np.empty(0, np.int32))


def test_cut_keeps_whole_characters() -> None:
    """A limit in the middle of a character leaves it out, and later texts with it."""
    assert quality.cut(["ab", "cé", "d"], 4) == ["ab", "c"]


def test_embedded_model_has_learned(unseen: str) -> None:
    """On unseen text its perplexity is at most a quarter of the best unigram's on the same tokens."""
    result = quality.measure(MODEL, [unseen])

    assert result.text_bytes == len(unseen.encode())
    assert result.ratio == pytest.approx(result.perplexity / result.unigram_perplexity)
    assert result.ratio <= 0.25


def test_every_token_is_judged_once_whatever_the_window(unseen: str) -> None:
    """A moving window judges each token once; inside the first window the figures are the full context's."""
    with Scorer(MODEL) as wide, Scorer(MODEL, n_ctx=256) as narrow:
        tokens = wide.tokenize(unseen)[:700]
        full, moved = wide.log_probabilities(tokens), narrow.log_probabilities(tokens)

    assert full.shape == moved.shape == tokens[1:].shape
    assert full.max() < 0
    np.testing.assert_allclose(moved[:256], full[:256], atol=0.02)
    assert not np.allclose(moved[256:], full[256:], atol=0.02)


def test_probabilities_do_not_depend_on_what_follows(unseen: str) -> None:
    """A token's figure is the same with and without the text after it, across the batches of llama_decode."""
    with Scorer(MODEL) as scorer:
        tokens = scorer.tokenize(unseen)[:400]
        whole, part = scorer.log_probabilities(tokens), scorer.log_probabilities(tokens[:300])

    np.testing.assert_allclose(part, whole[:299], atol=0.02)


def test_json_says_what_was_measured(unseen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one document, and a ratio within the limit is success."""
    text = tmp_path / "unseen.txt"
    text.write_text(unseen[:3000])

    code = quality.run(parse(str(MODEL), "--text", str(text), "--json", "--max-ratio", "0.9"))

    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["schema_version"] == 1
    assert [result["model"] for result in document["results"]] == [MODEL.name]
    assert document["results"][0]["text_bytes"] == 3000


def test_ratio_above_the_limit_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """A model worse than asked for gives exit code 1, and the table is printed all the same."""
    code = quality.run(parse("--max-bytes", "1000", "--max-ratio", "0.0001"))

    assert code == 1
    assert MODEL.name in capsys.readouterr().out


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """The message names the file and the byte."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"ab\xff")

    with pytest.raises(ValueError, match=r"binary is not UTF-8 text \(byte 2\)"):
        quality.run(parse("--text", str(binary)))


def test_arguments_are_checked_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text that stands where a model belongs, or one that is empty, is refused before the first model is run."""
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty.txt").write_text("")
    monkeypatch.setattr("bench.quality.measure", lambda *_, **__: pytest.fail("a model was run"))

    assert main(["bench", "quality", str(MODEL), str(tmp_path / "text.txt")]) == 3
    assert "texts to judge are named behind --text" in capsys.readouterr().err
    assert main(["bench", "quality", str(MODEL), "--text", str(tmp_path / "empty.txt")]) == 2
    assert "empty" in capsys.readouterr().err
    assert main(["bench", "quality", str(MODEL), "--text", str(tmp_path / "gone.txt")]) == 3


def test_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    """A wrong file is named before llama.cpp sees it."""
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"PK\x03\x04" * 20)

    with pytest.raises(GGUFError):
        quality.run(parse(str(wrong), "--max-bytes", "100"))
