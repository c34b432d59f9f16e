"""llama.cpp accepts the files: headers of every shape, and weights that compute."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.synth.sparse import write_sparse
from bench.synth.write import write_file
from ggufphys import Params
from ggufphys.synth import Shape, plan_file, shape_named, shapes
from tests import oracle

pytest.importorskip("llama_cpp")

TEXT = "Once upon a time, there was a müde cat.\n"


def generate(path: Path, text: str, n_tokens: int) -> dict[str, Any]:
    """What llama.cpp makes of the file, in a child process."""
    child = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("generate_child.py")), str(path), text, str(n_tokens)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert child.returncode == 0, child.stderr[-2000:]
    result: dict[str, Any] = json.loads(child.stdout)
    return result


def small(shape: Shape) -> Shape:
    """The shape with few layers, few experts and a small vocabulary: the same kinds of tensors, quickly written."""
    keys = dict(shape.cut(4 if shape.architecture == "qwen3next" else 2).keys)
    if "expert_count" in keys:
        keys["expert_count"] = keys["expert_used_count"]
    return replace(shape, keys=keys, n_vocab=2048, n_params=None)


@pytest.mark.parametrize("name", shapes())
def test_every_shape_loads(name: str, tmp_path: Path) -> None:
    """llama.cpp loads every shape's sparse file and counts the same bytes of weights."""
    plan = plan_file(shapes()[name])
    path = tmp_path / "model.gguf"
    write_sparse(plan, path)
    (answer,) = oracle.ask(path, [Params(n_ctx=256, use_extra_bufts=False)])

    assert "error" not in answer, answer
    assert answer["model"] == plan.file_bytes - len(plan.header)


# the smallest shape of each architecture, and the one with llama's experts
ONE_OF_EACH = (
    "mixtral-8x7b", "qwen2.5-0.5b", "qwen3-8b", "qwen3-30b-a3b", "qwen3-next-80b-a3b", "gemma-2-9b", "gemma-3-4b",
    "phi-4", "gpt-oss-20b", "deepseek-v2-lite", "mamba2-2.7b",
)  # fmt: skip


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_architecture_computes(name: str, tmp_path: Path) -> None:
    """A small file of each architecture gives finite logits that differ, token after token."""
    plan = plan_file(small(shape_named(name)))
    path = tmp_path / "model.gguf"
    write_file(plan, path, seed=0)
    result = generate(path, TEXT, 3)
    path.unlink()

    assert "error" not in result
    assert result["n_params"] == plan.n_params
    assert len(result["tokens"]) == 3
    assert result["logits_spread"] > 0.5


def test_110m(tmp_path: Path) -> None:
    """The 110M model, whole: text survives tokenising, generation depends on it, and runs alike twice."""
    path = tmp_path / "model.gguf"
    plan = plan_file(shape_named("llama-110m"))
    write_file(plan, path, seed=0)
    result = generate(path, TEXT, 8)

    assert result == generate(path, TEXT, 8)
    assert (result["n_params"], result["n_vocab"]) == (109_529_856, 32000)
    assert (result["bos"], result["eos"]) == (31998, 31999)
    assert result["text"] == TEXT
    assert result["n_prompt"] < len(TEXT)  # words, not bytes
    assert result["tokens"] != generate(path, "A different text.", 8)["tokens"]
