"""Contexts for embeddings: what pooling adds to the graph, and what llama-server reserves for them."""

from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys.builds.proven import why_unproven
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.errors import UnsupportedError
from ggufphys.gguf import open_gguf
from ggufphys.gguf.writer import encode_header
from ggufphys.memory.attachments import Server
from ggufphys.memory.attachments.server import predict_served
from ggufphys.memory.predict import Predictor, predict_memory
from ggufphys.params import POOLING_TYPES, Params, Pooling
from tests import archs, oracle
from tests.random_runs import reshaped

POOLINGS: tuple[Pooling, ...] = "none", "mean", "last", "rank"
BASE = Params(
    n_ctx=2048, n_seq_max=4, kv_unified=True, use_extra_bufts=False, use_mmap=False, no_alloc=True, embeddings=True
)
# Compute bytes of llama.cpp 0c1e570, by pooling as above.
RECORDED = {
    "llama": (5650432, 5658624, 5650464, 5650464),
    "bert": (3282944, 3291136, 3282976, 3282976),
    "modern-bert": (4593664, 4601856, 4593696, 4601856),
    "gemma-embedding": (4069376, 4077568, 4069408, 4069408),
    "qwen3": (5650432, 5658624, 5650464, 5650464),
}


@pytest.mark.parametrize("name", RECORDED)
def test_pooling_is_in_the_compute_buffer(tmp_path: Path, name: str) -> None:
    """The compute buffer of a context for embeddings is llama.cpp's, however they are pooled."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header(name))
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        found = tuple(predictor.predict(replace(BASE, pooling=pooling)).compute_bytes for pooling in POOLINGS)

    assert found == RECORDED[name]


@pytest.mark.slow
def test_pooling_is_llama_cpps(tmp_path: Path) -> None:
    """The same of a small model of every architecture, asked now."""
    path, wrong = tmp_path / "model.gguf", []
    for name in (name for name in archs.records() if "/" not in name):
        archs.write(path, name, archs.records()[name].tensors)
        with open_gguf(path) as gguf:
            try:
                predictor = Predictor(gguf)
            except UnsupportedError:  # a draft model that is nothing without its target
                continue
            for pooling in POOLINGS:
                params = replace(BASE, pooling=pooling)
                answers, died = oracle.ask_until_death(path, [params], {"GGML_NO_BACKTRACE": "1"}, no_alloc=True)
                if died or "error" in answers[0]:
                    continue
                ours = predictor.predict(params).compute_bytes
                if ours != answers[0]["compute"]:
                    wrong.append((name, pooling, ours, answers[0]["compute"]))
    assert wrong == []


def test_newer_builds_pool_without_logits(tmp_path: Path) -> None:
    """From b11739 on pooled contexts compute no logits, most of chameleon's bytes; those of tokens still do."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header("chameleon"))
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        found = {
            build: [
                predictor.predict(replace(BASE, pooling=pooling, llama_build=build)).compute_bytes
                for pooling in POOLINGS
            ]
            for build in (11548, 11739)
        }

    assert "contexts that pool moved" in why_unproven("llama", 11700, pools=True)
    assert not why_unproven("llama", 11700)
    assert not why_unproven("llama", 11739, pools=True)
    assert found[11739][1:] == [6713344, 6705184, 6705184]
    assert found[11548][1:] == [46723072, 46714912, 46714912]
    assert found[11739][0] == found[11548][0]


def test_lfm2_computes_no_logits_for_embeddings(tmp_path: Path) -> None:
    """Its graph ends with the hidden states then, in the builds that ask: a large vocabulary takes nothing."""
    path = tmp_path / "model.gguf"
    draft = reshaped("lfm2/period", {"lfm2.vocab_size": 4096})
    assert draft is not None
    draft.write(path)
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        pinned, older = (
            predictor.predict(replace(BASE, pooling="none", llama_build=build)).compute_bytes for build in (11312, 8762)
        )

    assert older - pinned > 4096 * 512


def test_the_file_says_how(tmp_path: Path) -> None:
    """Without --pooling the file's own type counts, and none where it has none or the context is for text."""
    path = tmp_path / "model.gguf"
    model, record = archs.models()["bert"], archs.records()["bert"]
    for number, expected in enumerate(POOLING_TYPES):
        path.write_bytes(encode_header({**model.metadata, "bert.pooling_type": number}, record.tensors))
        with open_gguf(path) as gguf:
            predictor = Predictor(gguf)
            assert predictor.context(BASE).pooling == expected
            assert predictor.context(replace(BASE, embeddings=False)).pooling == "none"


def test_t5s_rows_have_embeddings(tmp_path: Path) -> None:
    """Every row of t5's outputs has embeddings beside logits: those reserved, and those that a server takes later."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header("t5"))
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        served = predict_served(predictor, Server(), Params.server(n_ctx=4096))
        row = 4 * (predictor.h.n_vocab + predictor.h.n_embd)
    (more,) = (term for term in served.terms if term.name == "server: more rows of logits")

    assert served.output_bytes == 4 * row
    assert more.nbytes == (2048 - 4) * row  # an encoder's outputs are not limited


@pytest.mark.parametrize("name", ["deepseek4", "qwen4exp"])
def test_streams_are_wide(tmp_path: Path, name: str) -> None:
    """A row of embeddings has all streams: 21,184 bytes of four rows are what llama.cpp's log says, 0.02 MiB."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header(name))
    with open_gguf(path) as gguf:
        found = predict_memory(gguf, Params(n_ctx=256, n_seq_max=4, kv_unified=True, embeddings=True))

    assert found.output_bytes == 4 * (300 + 4 * 256) * 4 == 21_184
    assert "llama.cpp aborts: it reads embeddings of 1,024 numbers, and the graph makes 256" in found.notes


def test_what_is_never_run(tmp_path: Path) -> None:
    """A context that is made, and dies at its first batch: a note says so."""
    path = tmp_path / "model.gguf"
    notes = {}
    for name in ("dots3note", "dots3note/matched"):
        path.write_bytes(archs.header(name))
        with open_gguf(path) as gguf:
            notes[name] = " ".join(predict_memory(gguf, Params(n_ctx=256)).notes)

    assert "aborts at the first batch: layer 1 has a window" in notes["dots3note"]
    assert "aborts" not in notes["dots3note/matched"]


def test_outputs_grow_with_texts(tmp_path: Path) -> None:
    """The process of a context for embeddings has a row for each token of the largest pass, and no candidates."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header("bert"))
    with open_gguf(path) as gguf:
        grown, samplers = (
            {n: next((t.nbytes for t in predict_memory(gguf, BASE, n_batch=n).terms if t.name == name), 0)
             for n in (1, 70, 512)}
            for name in ("output buffer, grown", "samplers")
        )  # fmt: skip

    row = 4 * (300 + 256)
    assert grown == {1: 0, 70: (70 - 4) * row, 512: (512 - 4) * row}
    assert not any(samplers.values())


def test_a_server_for_embeddings_reserves_all_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    """--embeddings is one physical batch, all of whose tokens are outputs, with a row of embeddings beside logits."""
    params = Params.server(embeddings=True, n_ctx=4096)
    assert (params.n_batch, params.n_ubatch, params.n_outputs_max) == (512, 512, 512)
    assert Params.server(pooling="mean", n_ctx=4096).n_outputs_max == 2048
    with open_gguf(MODEL) as gguf:
        predictor = Predictor(gguf)
        text, rows = predictor.predict(Params.server(n_ctx=4096)), predictor.predict(params)
    assert rows.output_bytes - text.output_bytes == 4 * 4 * predictor.h.n_embd
    assert rows.compute_bytes > text.compute_bytes
    assert main(["inspect", str(MODEL), "-c", "4096", "--rerank"]) == 0
    out = capsys.readouterr().out
    assert "n_batch 512, n_ubatch 512" in out
    assert "not considered" not in out
