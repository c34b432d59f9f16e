"""What does a draft model read of its target: which weights, and whose caches? For rows of `table.py`.

Source: llama.cpp 0c1e570 src/models/eagle3.cpp, dflash.cpp, gemma4-assistant.cpp (ctx_other); src/llama-model.cpp,
create_memory (share).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ggufphys.arch.rules import Layers, flags_from_file
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.hparams.hparams import HParams

TARGET_EMBEDDING: Final = "target.token_embd.weight"
"""The name by which a draft with an embedding of its own reads its target's too."""
_EMBEDDING: Final = "token_embd.weight"
_OUTPUT: Final = "output.weight"


# -- weights, by the names that the draft gives them


def nothing_borrowed(draft: GGUFFile, target: GGUFFile) -> Mapping[str, TensorInfo]:
    """Nothing: another model makes no difference."""
    return {}


def embedding_and_output(draft: GGUFFile, target: GGUFFile) -> Mapping[str, TensorInfo]:
    """The embedding and the output matrix, each where the draft has none.

    Raises:
        ValueError: they are not as wide as the draft.
    """
    of_target = {name: target.tensors_by_name.get(name) for name in (_EMBEDDING, _OUTPUT)}
    of_target[_OUTPUT] = of_target[_OUTPUT] or of_target[_EMBEDDING]
    found = {name: t for name, t in of_target.items() if t is not None and name not in draft.tensors_by_name}
    return _as_wide(draft, found, "embedding_length")


def unless_tied(draft: GGUFFile, target: GGUFFile) -> Mapping[str, TensorInfo]:
    """The embedding and the output matrix that the draft lacks; one with an embedding computes its output with that."""
    return {} if _EMBEDDING in draft.tensors_by_name else embedding_and_output(draft, target)


def embedding_beside_own(draft: GGUFFile, target: GGUFFile) -> Mapping[str, TensorInfo]:
    """The target's embedding, though the draft has one for its output.

    Raises:
        ValueError: it is not as wide as the states that the draft reads.
    """
    embedding = target.tensors_by_name.get(_EMBEDDING)
    return {} if embedding is None else _as_wide(draft, {TARGET_EMBEDDING: embedding}, "embedding_length_out")


def _as_wide(draft: GGUFFile, found: Mapping[str, TensorInfo], key: str) -> Mapping[str, TensorInfo]:
    width = draft.get_int(f"{draft.architecture}.{key}", 0)
    for tensor in found.values():
        if tensor.ne[0] != width:
            raise ValueError(
                f"{draft.path}: a draft model for states {width} wide, which reads {tensor.name} of its target, whose "
                f"rows have {tensor.ne[0]} elements: expected as many"
            )
    return found


# -- caches


def none_read(h: HParams, of_target: Layers) -> Layers | None:
    """None: the draft has its own."""
    return None


def last_two(h: HParams, of_target: Layers) -> Layers:
    """Layers with a window read the cache of the target's last but one, the others that of the last."""
    windows: Sequence[bool] = flags_from_file(h)
    return tuple(of_target[-2 if window else -1] for window in windows)
