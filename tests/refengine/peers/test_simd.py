"""Which code of ggml's is followed, by what llama.cpp says of itself."""

from collections.abc import Iterator

import pytest

from refengine.peers import ggml, simd
from refengine.peers.simd import Simd, detected

AVX2 = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | LLAMAFILE = 1 | OPENMP = 1 | "


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A processor without special features on Linux; what was detected before is forgotten, and again afterwards."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(simd, "_processor_flags", frozenset)
    detected.cache_clear()
    yield monkeypatch
    detected.cache_clear()


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (AVX2, Simd(lanes=8, tiles=True, half_sums=False)),
        (AVX2 + "AVX512 = 1 | ", Simd(lanes=16, tiles=True, half_sums=False)),
        (AVX2.replace("LLAMAFILE = 1", "LLAMAFILE = 0"), Simd(lanes=8, tiles=False, half_sums=False)),
        ("CPU : SSE3 = 1 | AVX = 1 | F16C = 1 | LLAMAFILE = 1 | ", None),
        ("CPU : NEON = 1 | ARM_FMA = 1 | FP16_VA = 1 | DOTPROD = 1 | ", None),
    ],
)
def test_detected(info: str, expected: Simd | None, says: pytest.MonkeyPatch) -> None:
    """AVX2 with FMA is followed in vectors of 8, AVX-512 of 16, anything else not."""
    says.setattr(ggml, "system_info", lambda: info)

    assert detected() == expected


def test_sums_of_halves(says: pytest.MonkeyPatch) -> None:
    """Halves are added as halves where the processor can, and vectors are of 16."""
    says.setattr(simd, "_processor_flags", lambda: frozenset({"avx512_fp16"}))
    says.setattr(ggml, "system_info", lambda: AVX2 + "AVX512 = 1 | ")

    assert detected() == Simd(lanes=16, tiles=True, half_sums=True)


def test_elsewhere_than_on_linux(says: pytest.MonkeyPatch) -> None:
    """Another compiler fuses other operations: nothing is followed."""
    says.setattr("sys.platform", "darwin")
    says.setattr(ggml, "system_info", lambda: AVX2)

    assert detected() is None
