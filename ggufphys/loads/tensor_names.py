"""What may expressions of `tensors.txt` name? Hyperparameters, what follows from them, and questions about the file.

Source: llama.cpp 0c1e570 src/llama-hparams.cpp; src/llama-model.h, LLAMA_LOAD_LOCALS.
"""

from collections.abc import Callable, Mapping, Sized
from typing import Any, Final

from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.loads.hparams import Values

OPTIONAL: Final = 1
DUP: Final = 2
SKIP: Final = 4
RESHAPE: Final = 8
UNSCALED: Final = 16


class Names(dict[str, Any]):
    """Names set so far, in front of the hyperparameters."""

    def __init__(self, h: Values, **names: Any) -> None:
        super().__init__(names)
        self.h = h

    def __missing__(self, name: str) -> Any:
        return self.h[name]


def names_of(gguf: GGUFFile, h: Values, full_name: Callable[[str], str], made: set[str], *, load_mtp: bool) -> Names:
    """What an architecture's expressions see; `made` grows while tensors are created."""
    is_mla = bool(h["n_embd_head_k_mla"] and h["n_embd_head_v_mla"])
    n_embd_inp = h["n_embd_inp_impl"] or h["n_embd"] * (1 + h["n_deepstack_layers"])

    def windowed(name: str) -> Callable[[int], int]:
        return lambda il: int(h[f"{name}_swa" if h["is_swa"][il] else f"{name}_full"])

    head_k, head_v = windowed("n_embd_head_k"), windowed("n_embd_head_v")
    return Names(
        h, optional=OPTIONAL, dup=DUP, skip=SKIP, reshape=RESHAPE, unscaled=UNSCALED,
        max=max, sum=sum, map=map, zip=zip, str=str,
        load_mtp=load_mtp,
        n_vocab=_n_vocab(gguf, h),
        n_token_types=gguf.metadata.get("tokenizer.ggml.token_type_count", 0),
        n_cls_out=len(h["classifier_labels"]) or 1,
        n_embd_inp=n_embd_inp,
        n_embd_inp_enc=h["n_embd_inp_enc_impl"] or n_embd_inp,
        n_embd_out=h["n_embd_out_impl"] or h["n_embd"],
        n_embd_head_k=head_k,
        n_embd_head_v=head_v,
        n_embd_k_gqa=lambda il: head_k(il) * h["n_head_kv"][il],
        n_embd_v_gqa=lambda il: head_v(il) * h["n_head_kv"][il],
        n_rot=windowed("n_rot"),
        has_kv=lambda il: h["n_layer_kv_from_start"] < 0 or il < h["n_layer_kv_from_start"],
        is_mla=is_mla,
        n_embd_head_k_mla=h["n_embd_head_k_mla"] if is_mla else head_k(0),
        n_embd_head_v_mla=h["n_embd_head_v_mla"] if is_mla else head_v(0),
        made=lambda name: full_name(name) in made,
        has_tensor=lambda name: full_name(name) in gguf.tensors_by_name,
        ne=lambda name, axis: _size(gguf.tensors_by_name, full_name(name), axis),
    )  # fmt: skip


def _n_vocab(gguf: GGUFFile, h: Values) -> Any:
    """Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load."""
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    has_none = gguf.metadata.get("tokenizer.ggml.model") in ("no_vocab", "none")
    return (
        len(tokens) if isinstance(tokens, Sized) and not has_none else gguf.metadata.get(f"{h['arch']}.vocab_size", 0)
    )


def _size(tensors: Mapping[str, TensorInfo], name: str, axis: int) -> int:
    tensor = tensors.get(name)
    return 0 if tensor is None else (*tensor.ne, 1, 1, 1, 1)[axis]


__all__ = ["DUP", "OPTIONAL", "RESHAPE", "SKIP", "UNSCALED", "Names", "names_of"]
