"""How many bytes do llama.cpp's weight buffers hold on the host: mapped, allocated, repacked?

With mmap a buffer spans its file from the first tensor in it to the last, padding and other buffers' tensors included;
without, tensors are laid side by side, each padded to 32 bytes. Tensors that the CPU multiplies fastest in another
layout go to a buffer of their own (CPU_REPACK), and with mmap both copies are held.

Source: llama.cpp 0c1e570 src/llama-model.cpp, load_tensors, memory_breakdown; src/llama-model-loader.cpp,
get_mapping_range, create_tensor; ggml/src/ggml-alloc.c, ggml_backend_alloc_ctx_tensors_from_buft_impl.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from ggufphys.errors import GGUFError
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.gguf.writer import padded
from ggufphys.memory.repack import is_repacked
from ggufphys.memory.terms import Term
from ggufphys.params import Params

TENSOR_ALIGNMENT: Final = 32  # ggml-impl.h
OUTPUT: Final = "output.weight"
TOKEN_EMBD: Final = "token_embd.weight"


def weight_terms(gguf: GGUFFile, params: Params, cpu_features: frozenset[str]) -> tuple[Term, ...]:
    """Terms of model_bytes: one for each buffer of each file.

    Raises:
        GGUFError: a tensor has a type whose size is not known.
    """
    for tensor in gguf.tensors:
        if tensor.nbytes is None:
            raise GGUFError(f"{gguf.path}: tensor {tensor.name!r} has {tensor.type_name}, whose size is not known")
    repacked = repacked_tensors(gguf, params, cpu_features)
    moved = {t.name for t in repacked if t.name != TOKEN_EMBD}
    plain = [t for t in gguf.tensors if t.name not in moved]
    terms = _mapped_terms(gguf, plain) if params.use_mmap else _allocated_terms(plain, "CPU")
    return (*terms, *_allocated_terms(repacked, "CPU_REPACK"))


def repacked_tensors(gguf: GGUFFile, params: Params, cpu_features: frozenset[str]) -> list[TensorInfo]:
    """The tensors that the CPU backend keeps in a repacked layout.

    A tied token embedding is among them when its use as the output matrix prefers that; its rows are looked up in the
    plain layout, so it is then held twice.
    """
    if not params.use_extra_bufts:
        return []
    repacked = [t for t in gguf.tensors if is_repacked(t, cpu_features)]
    embedding = gguf.tensors_by_name.get(TOKEN_EMBD)
    if OUTPUT not in gguf.tensors_by_name and embedding is not None:
        repacked += [embedding] if is_repacked(embedding, cpu_features, as_output=True) else []
    return repacked


def _mapped_terms(gguf: GGUFFile, tensors: Iterable[TensorInfo]) -> tuple[Term, ...]:
    tensors = list(tensors)
    terms = []
    for index, shard in enumerate(gguf.shards):
        ends = [(t.offset, t.offset + (t.nbytes or 0)) for t in tensors if t.shard == index]
        if not ends:
            continue
        first, last = min(ends)[0], max(end for _, end in ends)
        terms.append(
            Term(
                quantity="model",
                name=f"weights mapped from {shard.path.name}",
                nbytes=last - first,
                buffer="CPU_Mapped",
                formula=f"last end {last:,} - first offset {first:,} of {len(ends)} tensors",
                source="src/llama-model-loader.cpp, get_mapping_range",
            )
        )
    return tuple(terms)


def _allocated_terms(tensors: Sequence[TensorInfo], buffer: str) -> tuple[Term, ...]:
    if not tensors:
        return ()
    return (
        Term(
            quantity="model",
            name="weights repacked for the CPU" if buffer == "CPU_REPACK" else "weights read into memory",
            nbytes=sum(padded(t.nbytes or 0, TENSOR_ALIGNMENT) for t in tensors),
            buffer=buffer,
            formula=f"sum of {len(tensors)} tensors, each padded to {TENSOR_ALIGNMENT}",
            source="ggml/src/ggml-alloc.c, ggml_backend_alloc_ctx_tensors_from_buft_impl",
        ),
    )
