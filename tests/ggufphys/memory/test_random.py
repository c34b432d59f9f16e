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
from tests import archs
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
            with pytest.raises(RefusedError, match="do not go together"):
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
    ],
)
def test_kinds_that_were_wrong(name: str, changes: Mapping[str, Any], tmp_path: Path) -> None:
    """No shared expert where one is built all the same; numbers of heads by layer of which the first alone is read."""
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
