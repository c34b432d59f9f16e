"""Predictions for models and parameters that nobody recorded: random ones, and kinds that random ones have found."""

import random
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufphys import GGUFError, Params, RefusedError, open_gguf, predict_memory
from ggufphys.memory.predict import Predictor
from scripts.check_random import rows
from tests import archs, attachment_oracle
from tests.forking_oracle import ForkingOracle
from tests.load_changes import Draft
from tests.random_runs import random_model, reshaped

BASE = Params(n_ctx=1024, use_extra_bufts=False, use_mmap=False)
ARTEFACTS = ("glm-dsa",)  # recorded behind a configuration that ended the process


def test_a_few_random_models() -> None:
    """Models of random shapes and types, run in random ways, take llama.cpp's own bytes, or neither runs them."""
    found = [row.verdict for row in rows(list(archs.records()), 40, 2, "quick", ())]

    assert found.count("same bytes") > 10
    assert [verdict for verdict in found if verdict.isupper()] == []


@pytest.mark.slow
def test_many_random_models() -> None:
    """Of many random models none takes other bytes than llama.cpp's own."""
    found = [row for row in rows(list(archs.records()), 400, 3, "slow", ()) if row.verdict == "OTHER BYTES"]

    assert [(row.number, row.ours, row.theirs) for row in found] == []


def test_a_random_model_is_named_by_its_seed() -> None:
    """The same generator makes the same model."""
    one, other = ([random_model("qwen3", random.Random(str(i))) for i in range(6)] for _ in range(2))

    assert any(one)
    assert one == other


def test_a_graph_that_cannot_be_built_is_refused_each_time(tmp_path: Path) -> None:
    """Who asks a second time, with other parameters, is told the same and gets no figures."""
    path = _written(tmp_path, "llama", {"llama.attention.head_count_kv": [2, 1, 2]})
    with open_gguf(path) as gguf:
        predictor = Predictor(gguf)
        for params in (BASE, replace(BASE, n_ctx=2048), replace(BASE, flash_attn="off"), BASE):
            with pytest.raises(RefusedError, match="makes keys of 128 elements, and keeps 64"):
                predictor.predict(params)


def test_where_llama_cpp_was_recorded_to_end_there_are_no_figures(tmp_path: Path) -> None:
    """A configuration of which llama.cpp's process dies is refused, not predicted."""
    path, wrong = tmp_path / "model.gguf", []
    for name, record in archs.records().items():
        if "aborts" not in record.rows or name.startswith(ARTEFACTS):
            continue
        path.write_bytes(archs.header(name))
        with open_gguf(path) as gguf:
            for params, row in zip(archs.GRID, record.rows, strict=True):
                try:
                    if row == "aborts":
                        predict_memory(gguf, params)
                        wrong.append((name, params))
                except (ValueError, GGUFError):
                    continue

    assert wrong == []


@pytest.mark.parametrize("name", ["minimax-01", "kimi-linear"])
def test_a_prompt_of_one_sequence_over_several_streams(name: str, tmp_path: Path) -> None:
    """A batch that the sequences' caches do not divide is refused with what would go, which llama.cpp takes."""
    path = _written(tmp_path, name, {})
    bad, good = replace(BASE, n_seq_max=3, n_ubatch=256), replace(BASE, n_seq_max=3, n_ubatch=258)
    with open_gguf(path) as gguf, pytest.raises(ValueError, match="expected a multiple of the 3 sequences"):
        predict_memory(gguf, bad)
    _assert_exact(path, good)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("glm4moe/plain", {"glm4moe.expert_shared_count": 0, "glm4moe.expert_feed_forward_length": 100}),
        ("command-r", {"command-r.attention.head_count": [2, 7, 8]}),
        ("bert", {"bert.attention.head_count_kv": [2, 4, 1]}),
        ("gemma3n", {"gemma3n.feed_forward_length": 1}),
    ],
)
def test_kinds_that_were_wrong(name: str, changes: Mapping[str, Any], tmp_path: Path) -> None:
    """No shared expert where one is built all the same; numbers of heads by layer of which the first alone is read;

    the deviation of a single gate.
    """
    _assert_exact(_written(tmp_path, name, changes), BASE)


def test_as_many_layers_as_a_period(tmp_path: Path) -> None:
    """Smallthinker of four layers rotates queries and keys in all of them, the first too."""
    path = _written(tmp_path, "smallthinker", {"smallthinker.block_count": 4})
    _assert_exact(path, replace(BASE, n_ctx=5000, n_ubatch=3, n_seq_max=4, flash_attn="off"))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("deepseek2", {"deepseek2.attention.key_length": 32}),
        ("hy_v4/dense", {"hy_v4.attention.key_length": 80, "hy_v4.attention.head_count_kv": 2}),
        ("dflash/ring", {"dflash.attention.head_count_kv": 2}),
        ("qwen3tts", {"qwen3tts.vocab_size": 2}),
        ("chameleon", {"chameleon.vocab_size": 304}),
    ],
)
def test_kinds_that_llama_cpp_does_not_run(name: str, changes: Mapping[str, Any], tmp_path: Path) -> None:
    """A cache of another width than its rows, and logits of another number than tokens, are refused."""
    path = _written(tmp_path, name, changes)
    with open_gguf(path) as gguf, pytest.raises(RefusedError):
        predict_memory(gguf, BASE)


@pytest.mark.parametrize(
    ("name", "key", "layers"),
    [
        ("lfm2", "attention.head_count_kv", (0, 0, 0, 0)),
        ("kimi-linear", "attention.head_count_kv", (0, 0, 0, 0)),
        ("kimi-linear", "attention.head_count_kv", (0, 0, 0, 1)),
        ("kimi-k3", "attention.head_count_kv", (0, 0, 0, 0)),
        ("bailingmoe3", "attention.head_count_kv", (0, 0, 0, 0)),
        ("minimax-01", "attention.recurrent_layers", (1, 1, 0)),
        ("dots3note/matched", "attention.sliding_window_pattern", (True,) * 5),
    ],
)
def test_layers_all_of_one_kind(name: str, key: str, layers: tuple[int, ...], tmp_path: Path) -> None:
    """Recurrent layers alone, or with attention in the last one alone, run as llama.cpp runs them, over any streams."""
    arch = archs.models()[name].arch
    n = archs.models()[name].metadata[f"{arch}.block_count"]
    assert isinstance(n, int)
    changed = [layers[min(il, len(layers) - 1)] for il in range(n)]
    _assert_exact(_written(tmp_path, name, {f"{arch}.{key}": changed}), replace(BASE, n_seq_max=3, n_ubatch=256))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("lfm2", "attention.head_count_kv", [0] * 4), ("jamba", "attention.head_count_kv", [0] * 4),
        ("kimi-linear", "attention.head_count_kv", [0] * 4), ("qwen35", "block_count", 2),
    ],
)  # fmt: skip
def test_hybrids_in_which_no_layer_attends(name: str, key: str, value: Any, tmp_path: Path) -> None:
    """A note says that llama.cpp dies of the first batch, as it does."""
    path = _written(tmp_path, name, {f"{archs.models()[name].arch}.{key}": value})
    with open_gguf(path) as gguf:
        notes = predict_memory(gguf, BASE).notes
    assert any("aborts at the first batch: no layer attends" in note for note in notes)
    with pytest.raises(AssertionError, match="GGML_ASSERT"):
        attachment_oracle.states(path, BASE, [1])


def test_a_draft_has_no_embeddings(tmp_path: Path) -> None:
    """A context for embeddings of an eagle3 file is refused, of which llama.cpp dies."""
    path, params = _written(tmp_path, "eagle3/spread", {}), replace(BASE, embeddings=True)
    with open_gguf(path) as gguf, pytest.raises(ValueError, match="eagle3 has no embeddings to give"):
        predict_memory(gguf, params)
    with ForkingOracle() as oracle:
        assert "aborts" in oracle.ask(path, params)


def test_a_prediction_head_and_nothing_else(tmp_path: Path) -> None:
    """Of a hybrid without a trunk an ordinary context keeps nothing, of other architectures the head's rows."""
    for name in ("qwen3next/head", "bailingmoe2/head"):
        arch = archs.models()[name].arch
        _assert_exact(_written(tmp_path, name, {f"{arch}.block_count": 1}), replace(BASE, no_alloc=True))


def test_what_goes_without_flash_attention_alone(tmp_path: Path) -> None:
    """Blocks are chosen for as many groups of heads as the indexer has, and dense attention knows no such number."""
    path = _written(tmp_path, "minimax-m3", {"minimax-m3.attention.head_count_kv": 4})
    with open_gguf(path) as gguf, pytest.raises(ValueError, match=r"head_count is 2.*expected head_count_kv, 4"):
        predict_memory(gguf, BASE)
    _assert_exact(path, replace(BASE, flash_attn="off"))


def test_values_that_end_behind_their_product(tmp_path: Path) -> None:
    """In cogvlm V lies where an embedding's length says: of one token behind the product, of three within it."""
    path = _written(tmp_path, "cogvlm", {"cogvlm.attention.head_count": 3, "cogvlm.attention.head_count_kv": 3})
    with open_gguf(path) as gguf, pytest.raises(ValueError, match="llama.cpp aborts: V begins at"):
        predict_memory(gguf, BASE)
    _assert_exact(path, replace(BASE, n_seq_max=3))


def test_rows_of_nothing(tmp_path: Path) -> None:
    """A head without heads for keys is all that would be cached: llama.cpp cannot allocate it, but can count it."""
    n = archs.models()["bailingmoe3/head"].metadata["bailingmoe3.block_count"]
    assert isinstance(n, int)
    path = _written(tmp_path, "bailingmoe3/head", {"bailingmoe3.attention.head_count_kv": [0] * n})
    with open_gguf(path) as gguf, pytest.raises(ValueError, match="fails to allocate a KV cache"):
        predict_memory(gguf, BASE)
    with ForkingOracle() as oracle:
        assert "error" in oracle.ask(path, BASE)
    _assert_exact(path, replace(BASE, no_alloc=True))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"attention.sliding_window_pattern": [False] * 5}, "layer 0 has neither a window nor an indexer"),
        (
            {"attention.sliding_window_pattern": [True] * 5, "attention.indexer.types": [0] * 5},
            "no layer has an indexer",
        ),
    ],
)
def test_indexers_that_are_missing(changes: Mapping[str, Any], why: str, tmp_path: Path) -> None:
    """A layer that should choose positions by an indexer's keys, and none that keeps any, are refused."""
    path = _written(tmp_path, "dots3note/matched", {f"dots3note.{key}": value for key, value in changes.items()})
    with open_gguf(path) as gguf, pytest.raises(GGUFError, match=why):
        predict_memory(gguf, BASE)


def _written(folder: Path, name: str, changes: Mapping[str, Any]) -> Path:
    """The recorded model with other keys, and tensors that go with them."""
    draft = reshaped(name, changes)
    assert isinstance(draft, Draft)
    path = Path(tempfile.mkdtemp(dir=folder), "model.gguf")
    draft.write(path)
    return path


def _assert_exact(path: Path, params: Params) -> None:
    with open_gguf(path) as gguf:
        memory = predict_memory(gguf, params)
    with ForkingOracle() as oracle:
        said = oracle.ask(path, params)
    assert (memory.model_bytes, memory.context_bytes, memory.compute_bytes) == tuple(
        said[quantity] for quantity in ("model", "context", "compute")
    )
