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

from ggufphys.errors import MissingExtraError, UnsupportedError, with_extra
from ggufphys.gguf import SIZES, GGMLType
from ggufphys.machine import llama_env
from refengine.blocks import F32, U8

ToFloat = Callable[[int, int, int], None]  # (address to read from, address to write to, number of weights)

_FLOATS: Final[Mapping[GGMLType, str]] = {
    GGMLType.F32: "ggml_cpu_fp32_to_fp32",
    GGMLType.F16: "ggml_fp16_to_fp32_row",
    GGMLType.BF16: "ggml_bf16_to_fp32_row",
}
_FROM_FLOATS: Final[Mapping[GGMLType, str]] = {
    GGMLType.F32: "ggml_cpu_fp32_to_fp32",
    GGMLType.F16: "ggml_fp32_to_fp16_row",
    GGMLType.BF16: "ggml_fp32_to_bf16_row_ref",
}
_ROW: Final = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]


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


def quantize(ggml_type: GGMLType, x: F32) -> U8:
    """What ggml's reference quantiser makes of `x`, a whole number of blocks: `(nbytes,)`. Raises as `dequantize`."""
    return _quantized(
        _row_function(_FROM_FLOATS.get(ggml_type, f"quantize_row_{_c_name(ggml_type)}_ref"), ggml_type, "from"),
        ggml_type,
        x,
    )


def quantize_on_cpu(ggml_type: GGMLType, x: F32) -> U8:
    """What ggml's CPU backend makes of activations: the function that its matrix products call, perhaps of SIMD code.

    Raises as `dequantize` does.
    """
    address = _cpu_traits(ggml_type).from_float
    if not address:
        raise UnsupportedError(f"ggml's CPU backend in llama_cpp {version()} can't convert F32 to {ggml_type.name}")
    return _quantized(ctypes.CFUNCTYPE(None, *_ROW)(address), ggml_type, x)


def vec_dot_type(ggml_type: GGMLType) -> int:
    """The type that the CPU backend converts activations to before their dot product with weights of `ggml_type`.

    Of types without a dot product it says 0, as for F32. Raises as `dequantize` does.
    """
    return int(_cpu_traits(ggml_type).vec_dot_type)


def cpu_vec_dot(ggml_type: GGMLType) -> int:
    """The address of the CPU backend's dot product with weights of a type, 0 for none. Raises as `dequantize` does."""
    return int(_cpu_traits(ggml_type).vec_dot or 0)


def _quantized(from_float: ToFloat, ggml_type: GGMLType, x: F32) -> U8:
    source = np.ascontiguousarray(x, np.float32)
    size = SIZES[ggml_type]
    raw = np.zeros(source.size // size.block_size * size.type_size, np.uint8)
    from_float(source.ctypes.data, raw.ctypes.data, source.size)
    return raw


@cache
def to_float(ggml_type: GGMLType) -> ToFloat:
    """The C function itself. Raises as `dequantize` does."""
    return _row_function(_FLOATS.get(ggml_type, f"dequantize_row_{_c_name(ggml_type)}"), ggml_type, "to")


def _row_function(name: str, ggml_type: GGMLType, direction: str) -> ToFloat:
    try:
        function = getattr(_llama_cpp().llama_cpp._lib, name)
    except AttributeError:
        raise UnsupportedError(
            f"ggml in llama_cpp {version()} can't convert {ggml_type.name} {direction} F32: it has no {name}"
        ) from None
    function.argtypes = _ROW
    function.restype = None
    return function  # type: ignore[no-any-return]  # ctypes makes functions of type Any


def _c_name(ggml_type: GGMLType) -> str:
    return ggml_type.name.lower().replace("_k", "_K")


class _CpuTraits(ctypes.Structure):
    """The struct ggml_type_traits_cpu."""

    _fields_ = (
        ("from_float", ctypes.c_void_p),
        ("vec_dot", ctypes.c_void_p),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    )


def _cpu_traits(ggml_type: GGMLType) -> Any:
    function = _llama_cpp().llama_cpp._lib.ggml_get_type_traits_cpu
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.POINTER(_CpuTraits)
    return function(int(ggml_type)).contents


def version() -> str:
    """The version of the installed llama_cpp. Raises MissingExtraError as `dequantize` does."""
    return str(_llama_cpp().__version__)


def system_info() -> str:
    """What the CPU backend was compiled for, as llama.cpp prints it. Raises MissingExtraError as `dequantize` does."""
    return str(_llama_cpp().llama_print_system_info().decode())


@cache
def _llama_cpp() -> Any:
    llama_env.prepare()
    try:
        import llama_cpp
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"no module {error.name!r}, which holds ggml's C functions: {with_extra('all')}"
        ) from None
    except (OSError, RuntimeError) as error:
        raise MissingExtraError(
            f"llama_cpp is installed, but its library does not load ({error}): reinstall llama-cpp-python"
        ) from None
    return llama_cpp
