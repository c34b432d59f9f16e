"""What guesses gain, measured with a model that costs several times what its draft does."""

from pathlib import Path

import pytest

from bench.deeper import write_deeper
from bench.drafts import N_TOKENS, Asked, Row, Spent, measure, row
from ggufphys import UnsupportedError, open_gguf
from tests import archs
from tests.server.chain_model import write_mixing_model


def test_a_deeper_model_says_the_same(tmp_path: Path) -> None:
    """With layers of zeros added a model answers as without: it is its own perfect draft, by llama.cpp's account."""
    model = write_mixing_model(tmp_path / "model.gguf")
    with open_gguf(model) as gguf:
        deeper = write_deeper(gguf, tmp_path / "deeper.gguf", 3)
    asked = Asked(guesses=("draft, always",), clients=(1,), rounds=1, n_max=3, n_threads=1)
    greedy, drawn = measure(deeper, model, asked)

    assert greedy.accepted == 1.0
    assert greedy.tokens_per_step > 3
    assert drawn.accepted < 1.0


def test_layers_that_differ(tmp_path: Path) -> None:
    """Where no layer stands for all the others, none is added."""
    path = tmp_path / "model.gguf"
    archs.write(path, "deepseek2", archs.records()["deepseek2"].tensors)
    with open_gguf(path) as gguf, pytest.raises(UnsupportedError, match="not all alike"):
        write_deeper(gguf, tmp_path / "deeper.gguf", 2)


def test_ratios() -> None:
    """A round's own two runs are compared, and the median taken; guesses and steps are added up."""
    plain = Spent(seconds=2.0, n_steps=64, n_drafted=0, n_accepted=0)
    guessed = [Spent(seconds=s, n_steps=32, n_drafted=60, n_accepted=n) for s, n in ((1.0, 30), (4.0, 15), (0.5, 45))]
    rounds = [(plain, each) for each in guessed]

    assert row(rounds, guesses="draft", tokens="greedy", n_clients=1) == Row(
        guesses="draft", tokens="greedy", n_clients=1, ratio=2.0, accepted=0.5, tokens_per_step=N_TOKENS / 32, step=1.0
    )
