"""For which layer is a tensor loaded? The answer decides on which device it lies.

Source: llama.cpp 0c1e570 src/llama-arch.cpp, LLM_TENSOR_INFOS; src/llama-model-loader.cpp, create_tensor; src/models/.
"""

from enum import Enum

from ggufphys.arch.loading import (
    EMBEDDING_IS_NO_OUTPUT,
    EMBEDDING_NORM_IS_OUTPUT,
    INPUT_TENSORS,
    OUTPUT_BEFORE_EMBEDDING,
    OUTPUT_IS_EMBEDDING,
    OUTPUT_TENSORS,
    ROPE_FACTORS,
    ROPE_FACTORS_ON_FULL_LAYERS,
)
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.names import split_name


class Role(Enum):
    """Roles beside that of one numbered layer."""

    INPUT = "looked up before the first layer"
    OUTPUT = "used behind the last layer"
    ROPE = "copied for each layer with rotary positions"


def role_of(arch: str, name: str) -> Role | int:
    """The role of a tensor by its name, or the number of its layer."""
    il, _ = split_name(name)
    if il is not None:
        return il
    stem = name.removesuffix(".weight").removesuffix(".bias")
    if stem in INPUT_TENSORS:
        return Role.INPUT
    if stem in OUTPUT_TENSORS or (stem == "token_embd_norm" and arch in EMBEDDING_NORM_IS_OUTPUT):
        return Role.OUTPUT
    return Role.ROPE if stem in ROPE_FACTORS else 0


def norm_layer(arch: str, name: str) -> int | None:
    """The layer that llama.cpp's graph builder says a norm belongs to, by the name of its gain; None for no layer.

    Of wavtokenizer's layers the convolutions say 0 and the others none; norms of several streams (qwen4exp) and of what
    scores them (kimi-k3) say none.
    """
    il, rest = split_name(name)
    if il is None:
        return 0 if name.startswith("token_embd_norm.") and arch not in EMBEDDING_NORM_IS_OUTPUT else None
    if rest.startswith("posnet."):
        return 0
    return None if rest.startswith(("convnext.", "hc_", "ple_")) or "_res_score." in rest else il


def embedding_is_output(gguf: GGUFFile) -> bool:
    """Is the token embedding the output matrix too?"""
    return "output.weight" not in gguf.tensors_by_name and gguf.architecture not in EMBEDDING_IS_NO_OUTPUT


def held_twice(gguf: GGUFFile) -> str | None:
    """The tensor that a loader creates once more in the buffer where it is already, if there is one."""
    arch, names = gguf.architecture, gguf.tensors_by_name
    if arch in OUTPUT_BEFORE_EMBEDDING and embedding_is_output(gguf):
        return "token_embd.weight"
    return "output.weight" if arch in OUTPUT_IS_EMBEDDING and "token_embd.weight" not in names else None


def rope_layers(gguf: GGUFFile) -> tuple[int, ...]:
    """The layers for which rotary factors are loaded: the file's blocks, not what a loader adds to them."""
    arch = gguf.architecture
    layers = range(gguf.get_int(f"{arch}.block_count", 0))
    if arch not in ROPE_FACTORS_ON_FULL_LAYERS:
        return tuple(layers)
    windows = tuple(gguf.get_array(f"{arch}.attention.sliding_window_pattern") or ())
    return tuple(il for il in layers if il >= len(windows) or not windows[il])
