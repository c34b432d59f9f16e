"""Which tensors of the file does llama.cpp load, and which of those stay in the file until a row is wanted?

Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, llama_model_loader::create_tensor, lazy_read::add; src/models/.
"""

import re
from collections.abc import Sequence, Set
from typing import Final

from ggufphys.arch.loading import (
    HEAD_BY_PROJECTION,
    HEADS_SKIPPED_BEFORE,
    KEPT_OF_HEAD,
    LAZY_BYTES,
    LOADED_OF_HEAD,
    NEVER_LOADED,
    READ_LAZILY,
    SKIPS_HEAD,
    SKIPS_HEAD_UNLESS_ASKED,
)
from ggufphys.builds.moves import Rule
from ggufphys.gguf import GGUFFile, TensorInfo

_NAME: Final = re.compile(r"(?s)(?:(?:enc|dec)\.)?(?:blk\.(\d+)\.)?(.*?)(?:\.weight|\.bias|\.scale|\.input_scale)?")


def loaded_tensors(
    gguf: GGUFFile, *, load_mtp: bool, rules: Set[Rule]
) -> Sequence[tuple[TensorInfo, tuple[int | None, str]]]:
    """The tensors that get a place in memory, each with its layer and its name there (`GGUFFile.split_names`).

    `load_mtp` asks for the layers that predict further tokens; `rules` are those that moved and hold in the build.
    """
    arch = gguf.architecture
    asked = load_mtp or (arch not in HEADS_SKIPPED_BEFORE and "heads_loaded" in rules)
    head = _first_skipped_layer(gguf, asked)
    kept = LOADED_OF_HEAD.get(gguf.architecture, frozenset())
    for rule, names in KEPT_OF_HEAD.items():
        if arch in names and rule in rules:
            kept = kept | names[arch]
    named = list(zip(gguf.tensors, gguf.split_names, strict=True))
    if head is not None:
        return [row for row in named if _is_loaded(row[0].name, head, kept)]
    loaded = {
        name: _is_loaded(name, None, kept) for name in {name for _, name in gguf.split_names}
    }  # few: layers share them
    return named if all(loaded.values()) else [row for row in named if loaded[row[1][1]]]


def is_read_lazily(arch: str, tensor: TensorInfo) -> bool:
    """Is the tensor so large a table that llama.cpp maps it, whatever it does with the others?"""
    return READ_LAZILY.get(arch) == tensor.name and (tensor.nbytes or 0) > LAZY_BYTES


def _is_loaded(name: str, first_skipped: int | None, kept: frozenset[str]) -> bool:
    match = _NAME.fullmatch(name)
    assert match is not None
    if match[2] in NEVER_LOADED:
        return False
    return first_skipped is None or match[1] is None or int(match[1]) < first_skipped or match[2] in kept


def _first_skipped_layer(gguf: GGUFFile, load_mtp: bool) -> int | None:
    arch = gguf.architecture
    n_head = gguf.get_int(f"{arch}.nextn_predict_layers", 0)
    skips = arch in SKIPS_HEAD or (arch in SKIPS_HEAD_UNLESS_ASKED and not load_mtp)
    if not (skips and n_head):
        return None
    first = gguf.get_int(f"{arch}.block_count", 0) - n_head
    is_head = arch not in HEAD_BY_PROJECTION or f"blk.{first}.nextn.eh_proj.weight" in gguf.tensors_by_name
    return first if is_head else None
