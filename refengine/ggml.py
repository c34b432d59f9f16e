"""ggml's own conversions to F32, called in the library that the installed llama_cpp runs models with.

The functions are looked up through llama_cpp's handle on libllama: a wheel holds several copies of libggml, and opening
one of them by its name would load a second ggml beside the one in use.
Source: llama.cpp 0c1e570 ggml/src/ggml-quants.h, dequantize_row_*; ggml/include/ggml.h, ggml_*_to_fp32_row;
ggml/include/ggml-cpu.h, ggml_cpu_fp32_to_fp32.
"""

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from ggufphys import llama_env
from ggufphys.errors import MissingExtraError, UnsupportedError
from ggufphys.gguf import SIZES, GGMLType
from refengine.blocks import F32, U8

ToFloat = Callable[[int, int, int], None]  # (address of blocks, address of floats, number of weights)

_FLOATS: Final[Mapping[GGMLType, str]] = {
    GGMLType.F32: "ggml_cpu_fp32_to_fp32",
    GGMLType.F16: "ggml_fp16_to_fp32_row",
    GGMLType.BF16: "ggml_bf16_to_fp32_row",
}


def dequantize(ggml_type: GGMLType, raw: U8) -> F32:
    """What ggml makes of whole blocks: F32 of shape `(n_weights,)`.

    The bytes are copied first: C reads them as structs, which need their alignment. No byte pattern can harm the
    conversions; they index tables by at most the bits that a field has.

    Raises:
        MissingExtraError: llama_cpp is not installed, or does not load.
        UnsupportedError: the installed ggml has no conversion from this type.
    """
    aligned = np.array(raw, dtype=np.uint8, order="C")
    size = SIZES[ggml_type]
    w = np.empty(aligned.size // size.type_size * size.block_size, np.float32)
    to_float(ggml_type)(aligned.ctypes.data, w.ctypes.data, w.size)
    return w


@cache
def to_float(ggml_type: GGMLType) -> ToFloat:
    """The C function itself. Raises as `dequantize` does."""
    name = _FLOATS.get(ggml_type, f"dequantize_row_{ggml_type.name.lower().replace('_k', '_K')}")
    try:
        function = getattr(_llama_cpp().llama_cpp._lib, name)
    except AttributeError:
        raise UnsupportedError(f"ggml in llama_cpp {version()} can't convert {ggml_type.name} to F32") from None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    function.restype = None
    return function  # type: ignore[no-any-return]  # ctypes makes functions of type Any


def version() -> str:
    """The version of the installed llama_cpp. Raises MissingExtraError as `dequantize` does."""
    return str(_llama_cpp().__version__)


@cache
def _llama_cpp() -> Any:
    llama_env.prepare()
    try:
        import llama_cpp
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"no module {error.name!r}, which holds ggml's C functions: install ggufphys[all]"
        ) from None
    except (OSError, RuntimeError) as error:
        raise MissingExtraError(
            f"llama_cpp is installed, but its library does not load ({error}): reinstall llama-cpp-python"
        ) from None
    return llama_cpp
