"""What does a draft model read of its target's weights, where its own file lacks them? For rows of `table.py`.

Source: llama.cpp 0c1e570 src/models/eagle3.cpp, src/models/dflash.cpp (ctx_other).
"""

from collections.abc import Mapping

from ggufphys.gguf import GGUFFile, TensorInfo

_EMBEDDING = "token_embd.weight"
_OUTPUT = "output.weight"


def nothing_borrowed(draft: GGUFFile, target: GGUFFile) -> Mapping[str, TensorInfo]:
    """Nothing: another model makes no difference."""
    return {}


def embedding_and_output(draft: GGUFFile, target: GGUFFile) -> Mapping[str, TensorInfo]:
    """The embedding and the output matrix, each where the draft has none: by the names that it gives its own."""
    of_target = {name: target.tensors_by_name.get(name) for name in (_EMBEDDING, _OUTPUT)}
    of_target[_OUTPUT] = of_target[_OUTPUT] or of_target[_EMBEDDING]
    return {
        name: tensor for name, tensor in of_target.items() if tensor is not None and name not in draft.tensors_by_name
    }


def unless_tied(draft: GGUFFile, target: GGUFFile) -> Mapping[str, TensorInfo]:
    """The same, but a draft with an embedding computes its output with that."""
    return {} if _EMBEDDING in draft.tensors_by_name else embedding_and_output(draft, target)
