"""In which order does ggml's CPU code add? Its vectors' width decides; which it is, the running build says.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/simd-mappings.h, GGML_F32_EPR, GGML_F32_ARR; ggml/src/ggml-cpu/ggml-cpu.cpp,
ggml_backend_cpu_get_features.
"""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ggufphys.errors import MissingExtraError
from refengine.peers import ggml

REGISTERS: Final = 4  # that a dot product adds up in, side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class Simd:
    """The x86 code that is followed: with AVX2 and FMA vectors of 8 floats, with AVX-512 of 16.

    `tiles`: products of several rows take llamafile's kernels. `half_sums`: AVX512-FP16 code adds up halves without
    going through F32 (llama_cpp does not say so; what it was compiled for is taken to be this processor). `bf16_pairs`:
    AVX512-BF16 code multiplies pairs of BF16.
    """

    lanes: int
    tiles: bool
    half_sums: bool
    bf16_pairs: bool = False


@cache
def detected() -> Simd | None:
    """What the installed llama_cpp was compiled for, as far as it is followed here; None for anything else.

    Only on Linux, where GCC is what usually compiled it: which operations are fused is the compiler's choice.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        said = ggml.system_info()
    except MissingExtraError:
        return None
    features = {name.strip() for name, _, on in (part.partition("=") for part in said.split("|")) if on.strip() == "1"}
    features |= {name.rpartition(":")[2].strip() for name in features}
    if not {"AVX2", "FMA", "F16C"} <= features:
        return None
    wide = "AVX512" in features
    return Simd(
        lanes=16 if wide else 8,
        tiles="LLAMAFILE" in features,
        half_sums=wide and "avx512_fp16" in _processor_flags(),
        bf16_pairs=wide and "AVX512_BF16" in features,
    )


def _processor_flags() -> frozenset[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return frozenset(next((line.split(":")[1] for line in lines if line.startswith("flags")), "").split())
