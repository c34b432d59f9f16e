"""Logits of a small model of every architecture whose graph is written, against llama.cpp's."""

from pathlib import Path
from typing import Any

import pytest

import refengine
from tests.refengine import tiny
from tests.refengine.ways import AMPLIFIES, WAYS, agreements, arch_of, generating, opened, ways_of

# A family's ways of computing, each once; the other architectures and all variants take minutes.
QUICK = (
    "llama", "llama/moe", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "gpt-oss", "deepseek2",
    "deepseek2/uncompressed", "granite", "olmo2", "olmoe", "starcoder2", "command-r", "glm4", "mamba2", "falcon-h1",
    "lfm2", "nemotron_h", "qwen3next",
)  # fmt: skip
# Those with operations or inputs that no other has.
RARE = ("deepseek32", "minimax-m3", "qwen4exp", "kimi-k3", "minimax-01", "graniteswitch")
OTHERS = [name for name in generating() if name not in (*QUICK, *RARE)]


@pytest.mark.parametrize("name", [*QUICK, *RARE])
def test_logits(name: str, tmp_path: Path) -> None:
    """With F32 weights and cache nothing is left but the rounding of sums; an F16 cache adds F16's."""
    path = tiny.write(tmp_path / "f32.gguf", name)

    f32, f16, flash = agreements([opened(path, way) for way in WAYS])

    assert f32.nmse <= 1e-10
    assert f16.nmse <= 1e-7
    assert flash.nmse <= 1e-7


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("chameleon", {"chameleon.swin_norm": True}),
        ("starcoder2", {"starcoder2.rope.scaling.type": "yarn", "starcoder2.rope.freq_base": 1.0}),
    ],
)
def test_logits_with_other_keys(name: str, keys: dict[str, Any], tmp_path: Path) -> None:
    """Ways of computing that no small model has by itself."""
    path = tiny.write(tmp_path / "f32.gguf", name, metadata=keys)

    [f32] = agreements([opened(path, "F32")])

    assert f32.nmse <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_logits_of_the_others(name: str, tmp_path: Path) -> None:
    """The other architectures and variants."""
    path = tiny.write(tmp_path / "f32.gguf", name)

    ways = ways_of(name)

    found = agreements([opened(path, way, emulate=arch_of(name) in AMPLIFIES) for way in ways])

    for way, row in zip(ways, found, strict=True):
        assert row.nmse <= (1e-10 if way == "F32" else 1e-7), way


@pytest.mark.parametrize("name", [name for name in QUICK if "/" not in name])
def test_quantised_weights(name: str, tmp_path: Path) -> None:
    """Where activations are quantised as ggml does, quantised weights give its logits."""
    paths = [
        tiny.write(tmp_path / f"{type_of.__name__}.gguf", name, type_of, gain=0.05)
        for type_of in (tiny.q8_0, tiny.q4_k_m)
    ]

    q8_0, q4_k_m = agreements([refengine.load(path, n_ctx=256, n_threads=2, emulate=True) for path in paths])

    assert q8_0.nmse <= 1e-6
    assert q4_k_m.nmse <= 1e-6


@pytest.mark.parametrize("name", ["qwen3", "llama/moe"])
def test_blocks_with_minima_or_scales(name: str, tmp_path: Path) -> None:
    """Minima of Q4_1 and Q5_1 meet sums that ggml rounds; NVFP4's products are multiplied with scales of the file."""
    paths = [
        tiny.write(tmp_path / f"{type_of.__name__}.gguf", name, type_of, gain=0.05)
        for type_of in (tiny.q5_1, tiny.nvfp4)
    ]

    q5_1, nvfp4 = agreements([refengine.load(path, n_ctx=256, n_threads=2, emulate=True) for path in paths])

    assert q5_1.nmse <= 2e-7  # without those sums 5e-7
    assert nvfp4.nmse <= 1e-6


FIRST = {arch_of(name): name for name in reversed(list(generating()))}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for arch, name in FIRST.items() if arch not in ("qwen3", "llama")])
def test_scales(name: str, tmp_path: Path) -> None:
    """Weights in NVFP4 with scales far from 1: every architecture's logits are llama.cpp's."""
    path = tiny.write(tmp_path / "nvfp4.gguf", name, tiny.nvfp4, gain=0.05)

    [found] = agreements([opened(path, ways_of(name)[-1], emulate=True)])

    assert found.nmse <= 1e-6


def test_activations_that_are_not_quantised(tmp_path: Path) -> None:
    """Without emulation the logits are further from llama.cpp's, and whole matrices in memory change nothing."""
    path = tiny.write(tmp_path / "q8_0.gguf", "llama", tiny.q8_0, gain=0.05)
    settings: tuple[dict[str, Any], ...] = ({"emulate": True}, {}, {"hold": "quantised"})

    emulated, plain, from_file = agreements([refengine.load(path, n_ctx=256, n_threads=2, **s) for s in settings])

    assert emulated.nmse < 1e-6 < plain.nmse < 1e-3
    assert from_file.nmse == pytest.approx(plain.nmse, rel=0.01)
