"""Scales beside weights are multiplied with where llama.cpp's builder of the architecture does, and nowhere else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys import GGUFError, Params, open_gguf, predict_memory
from ggufphys.arch.scales import LESS, MORE
from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec
from ggufphys.graph.models import LATER, MODELS
from tests import archs, graph_oracle, scales
from tests.ggufphys.graph.test_models import (
    CANNOT_RUN,
    ENDLESS,
    HEADED,
    N_TOKENS,
    ROTATES_BY_NO_SECTION,
    WRITTEN,
    difference,
)

FLASH_DIES = "plm"
RUNS = [name for name in WRITTEN if name not in (*ENDLESS, *CANNOT_RUN, FLASH_DIES)]
FIRST = list({archs.models()[name].arch: name for name in reversed(RUNS)}.values())
HEADS_RUN = [name for name in HEADED if name != ROTATES_BY_NO_SECTION]


def test_known_architectures() -> None:
    """The tables name no architecture without a graph, so a typing error does not pass for a rule."""
    assert {*MORE, *LESS} <= MODELS.keys() | LATER.keys()


@pytest.mark.parametrize("head", [False, True], ids=["trunk", "head"])
def test_nodes(tmp_path: Path, head: bool) -> None:
    """With a scale beside every weight that may have one, all nodes are llama.cpp's, for every architecture."""
    assert differences(tmp_path, HEADS_RUN if head else FIRST, head) == {}


@pytest.mark.slow
def test_nodes_of_the_others(tmp_path: Path) -> None:
    """The other models of each architecture."""
    assert differences(tmp_path, [name for name in RUNS if name not in FIRST], head=False) == {}


def differences(folder: Path, names: Sequence[str], head: bool) -> dict[str, str]:
    """Where our nodes and llama.cpp's part, by model."""
    params = Params(n_ctx=512, n_ubatch=64, use_extra_bufts=False, flash_attn="on")
    params = replace(params, load_mtp=True, ctx_type="mtp") if head else params
    paths = [folder / f"{i}.gguf" for i in range(len(names))]
    for name, path in zip(names, paths, strict=True):
        archs.write(path, name, scales.with_scales(name, head=head))
    theirs = graph_oracle.llama_graphs(paths, params, N_TOKENS)
    assert [name for name, nodes in zip(names, theirs, strict=True) if nodes is None] == []
    rows = zip(names, paths, theirs, strict=True)
    return {name: found for name, path, nodes in rows if (found := difference(path, params, nodes))}


def test_a_bias_beside_a_scale(tmp_path: Path) -> None:
    """Where llama.cpp ends over an NVFP4 weight with a scale and a bias, we refuse and name the weight."""
    path = tmp_path / "model.gguf"
    tensors = [
        replace(t, ggml_type=GGMLType.NVFP4) if t.name == "blk.1.ffn_up.weight" else t
        for t in archs.records()["llama"].tensors
    ]
    archs.write(path, "llama", [*tensors, TensorSpec("blk.1.ffn_up.scale", (1,), GGMLType.F32)])

    with open_gguf(path) as gguf, pytest.raises(GGUFError, match=r"blk\.1\.ffn_up\.weight is NVFP4 .* a bias"):
        predict_memory(gguf)
