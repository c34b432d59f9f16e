"""Models that see a whole sequence at once: embeddings of encoders, logits of diffusion models, against llama.cpp's."""

from pathlib import Path

import numpy as np
import pytest

import refengine
from ggufphys import UnsupportedError
from refengine.batch import Tokens
from refengine.checks.logits import agreement
from refengine.inputs.alone import buckets
from refengine.peers.llama_logits import LlamaRequest, llama_logits
from tests.refengine import tiny
from tests.refengine.ways import WAYS, opened

ENCODERS = (
    "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "eurobert", "modern-bert",
    "t5encoder",
)  # fmt: skip
DIFFUSION = ("llada", "dream", "llada-moe", "rnd1")
QUICK = ("bert", "jina-bert-v2", "modern-bert", "t5encoder", "llada")
N_TOKENS = 64


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in (*ENCODERS, *DIFFUSION)]
)
def test_each_token(name: str, tmp_path: Path) -> None:
    """What is made of each token is what llama.cpp makes of it, with and without flash attention."""
    path = tiny.write(tmp_path / "f32.gguf", name)
    embeds = name in ENCODERS
    models = [opened(path, way) for way in WAYS if way != "F16"]
    tokens = np.random.default_rng(2).integers(0, models[0].h.n_vocab, N_TOKENS).tolist()

    ours = [model.embeddings(tokens) if embeds else model.logits(tokens) for model in models]

    n = np.arange(N_TOKENS)
    batch = Tokens(ids=np.asarray(tokens), positions=n, sequences=0 * n, wanted=None)
    requests = [
        LlamaRequest(path=path, context=model.context, batches=[batch], n_threads=2, embeddings=embeds)
        for model in models
    ]
    theirs = [run.logits for run in llama_logits(requests)]
    f32, flash = (agreement(a, b) for a, b in zip(theirs, ours, strict=True))
    assert f32.nmse <= 1e-10
    assert flash.nmse <= 1e-7


def test_no_logits_of_an_encoder(tmp_path: Path) -> None:
    """An encoder is asked for embeddings, and for no more tokens than it can see at once."""
    model = refengine.load(tiny.write(tmp_path / "f32.gguf", "bert"), n_ctx=256, n_ubatch=8)

    with pytest.raises(UnsupportedError, match="gives embeddings and no logits"):
        model.logits([1, 2, 3])
    with pytest.raises(ValueError, match="9 tokens, which must all be computed at once, but at most 8"):
        model.embeddings(range(9))


def test_buckets_of_distances() -> None:
    """Of 32 buckets 8 to each side hold one distance, 8 share the others, in steps of a logarithm."""
    found = buckets(np.array([0, -1, -7, -8, -11, -12, -127, -128, -5000, 1, 7, 8, 128]), 32)

    assert found.tolist() == [0, 1, 7, 8, 8, 9, 15, 15, 15, 17, 23, 24, 31]
