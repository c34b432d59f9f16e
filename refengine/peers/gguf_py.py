"""The gguf package's numpy dequantisation, in the shape in which ours and ggml's are called: a second opinion."""

import importlib.metadata
from functools import cache
from typing import Any

import numpy as np

from ggufphys.errors import MissingExtraError, UnsupportedError, with_extra
from ggufphys.gguf import GGMLType
from refengine.blocks import F32, U8


def dequantize(ggml_type: GGMLType, raw: U8) -> F32:
    """What gguf makes of whole blocks: F32 of shape `(n_weights,)`.

    Raises:
        MissingExtraError: gguf is not installed.
        UnsupportedError: gguf does not know the type, or has no numpy code for it.
    """
    gguf = _gguf()
    try:
        with np.errstate(all="ignore"):  # it warns of the NaNs that Inf * 0 gives
            weights: F32 = gguf.quants.dequantize(np.ascontiguousarray(raw), gguf.GGMLQuantizationType(int(ggml_type)))
    except (ValueError, NotImplementedError):
        raise UnsupportedError(f"gguf {version()} has no numpy code for {ggml_type.name}") from None
    return weights


def version() -> str:
    """The version of the installed gguf package. Raises MissingExtraError when there is none."""
    _gguf()
    return importlib.metadata.version("gguf")


@cache
def _gguf() -> Any:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"no module {error.name!r}: {with_extra('all')}") from None
    return gguf
