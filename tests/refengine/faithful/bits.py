"""What the tests of faithful arithmetic share: ggml's dot products as C has them, and comparing bits."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from ggufphys.gguf import SIZES, GGMLType
from refengine.blocks import F32, U8
from refengine.peers import ggml
from refengine.peers.simd import Simd, detected

_DOT = ctypes.CFUNCTYPE(
    None, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
    ctypes.c_size_t, ctypes.c_int,
)  # fmt: skip


def same_bits(a: F32, b: F32) -> bool:
    """Whether two arrays of F32 have the same shape and bits."""
    return a.dtype == b.dtype == np.float32 and a.shape == b.shape and a.tobytes() == b.tobytes()


def simd_or_skip() -> Simd:
    """The code that llama_cpp runs here, if it is one that is followed."""
    simd = detected()
    if simd is None:
        pytest.skip("llama_cpp's code for this processor is not followed to the bit")
    return simd


def c_dot(ggml_type: GGMLType) -> Callable[[U8, U8, int], np.float32]:
    """The function of ggml's CPU backend: bytes of weights, of activations, and how many."""
    function = _DOT(ggml.cpu_vec_dot(ggml_type))

    def dot(weights: U8, activations: U8, n: int) -> np.float32:
        assert len(weights) == n // SIZES[ggml_type].block_size * SIZES[ggml_type].type_size
        found = np.zeros(1, np.float32)
        w, x = (np.array(raw, np.uint8, order="C") for raw in (weights, activations))
        function(n, found.ctypes.data, 0, w.ctypes.data, 0, x.ctypes.data, 0, 1)
        return np.float32(found[0])

    return dot
