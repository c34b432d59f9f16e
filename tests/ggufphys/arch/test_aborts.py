"""Of which batches does llama.cpp die? What rows of the table say, by hyperparameters alone."""

from pathlib import Path
from typing import Any

import pytest

from ggufphys.arch import read_hparams, rule_for
from ggufphys.frozen import replace
from ggufphys.gguf import open_gguf
from ggufphys.hparams.hparams import HParams
from tests import archs


def hparams(folder: Path, name: str) -> HParams:
    """Those of a small model."""
    path = folder / "model.gguf"
    path.write_bytes(archs.header(name))
    with open_gguf(path) as gguf:
        return read_hparams(gguf)


@pytest.mark.parametrize(
    ("name", "flags", "n_swa", "kind"),
    [
        ("gemma-embedding", (True, False, True), 100, ""),
        ("gemma-embedding", (True, True, True), 100, "a window"),
        ("gemma-embedding", (False, False, False), 0, "no window"),
        ("modern-bert", (False, True, True), 100, ""),
        ("modern-bert", (False, False, False), 100, "no window"),
        ("modern-bert", (False, False, False), 0, ""),
    ],
)
def test_masks(tmp_path: Path, name: str, flags: tuple[bool, ...], n_swa: int, kind: str) -> None:
    """A mask that no layer uses has no buffer, and is filled: modern-bert's of windows only where it has a size."""
    h = replace(hparams(tmp_path, name), swa_pattern=flags, n_swa=n_swa)
    found = rule_for(name).aborts_later(h)

    assert found.partition("layers have ")[2].partition(" (")[0] == kind


@pytest.mark.parametrize(
    ("windows", "indexers", "length", "said"),
    [
        ((True, True, False, True, True), (0, 0, 1, 0, 0), 96, ""),
        ((True, True, False, True, True), (0, 1, 1, 0, 0), 64, ""),  # as long as the indexer's
        ((True, True, False, True, True), (0, 1, 1, 0, 0), 96, "layer 1 has a window of heads of 96"),
        ((True,) * 5, (1,) * 5, 64, "all 5 layers have a window"),
        ((False,) * 5, (1,) * 5, 64, "all 5 layers have no window"),
    ],
)
def test_caches(tmp_path: Path, windows: tuple[bool, ...], indexers: tuple[int, ...], length: int, said: str) -> None:
    """dots3note: both caches are filled, and indexers in layers with a window are rotated by their heads' length."""
    h = replace(
        hparams(tmp_path, "dots3note"), swa_pattern=windows, indexer_types=indexers, n_embd_head_k_swa=length
    )  # fmt: skip
    found = rule_for("dots3note").aborts_later(h)

    assert bool(found) == bool(said)
    assert said in found


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("mistral4", {"attn_temp_scale": 0.1, "attn_temp_length": 0}, "temperature_scale is 0.1, and there is no"),
        ("deepseek2", {"attn_temp_scale": 0.1, "attn_temp_length": 8192}, ""),
        ("deepseek2", {"attn_temp_scale": 0.0, "attn_temp_length": 0}, ""),
        ("llama4", {"n_swa": 0}, "without windows"),
        ("llama4", {"n_swa": None}, ""),
    ],
)
def test_factors_of_queries(tmp_path: Path, name: str, changes: dict[str, Any], said: str) -> None:
    """Factors that grow with positions want to know by which steps: llama.cpp asserts it when it fills them in."""
    found = rule_for(name).aborts_later(replace(hparams(tmp_path, name), **changes))

    assert bool(found) == bool(said)
    assert said in found


@pytest.mark.parametrize("name", ["deepseek4", "qwen4exp"])
def test_streams(tmp_path: Path, name: str) -> None:
    """Embeddings of several streams are read where there is one."""
    h = hparams(tmp_path, name)

    assert rule_for(name).aborts_embedding(replace(h, hc_mult=1)) == ""
    assert "embeddings of 1,024 numbers, and the graph makes 256" in rule_for(name).aborts_embedding(h)
