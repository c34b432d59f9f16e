"""How many bytes do llama.cpp's weight buffers hold: mapped, allocated, repacked, on devices?

Tensors that an architecture's loader leaves out are in no buffer (`ggufphys/arch/loaded.py`).

With mmap a buffer spans its file from the first tensor in it to the last, padding and other buffers' tensors included;
without, tensors are laid side by side, each padded as the backend wants. Tensors that the CPU multiplies fastest in
another layout go to a buffer of their own (CPU_REPACK), and with mmap both copies are held.

Source: llama.cpp 0c1e570 src/llama-model.cpp, load_tensors, memory_breakdown; src/llama-model-loader.cpp,
get_mapping_range, create_tensor; ggml/src/ggml-alloc.c, ggml_backend_alloc_ctx_tensors_from_buft_impl;
ggml/src/ggml-backend.cpp, ggml_backend_cpu_buffer_from_ptr.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.graph.devices.placed import AMX, REPACKED, Buffer
from ggufphys.memory.terms import Term
from ggufphys.params import HOST

MAPPED_ALIGNMENT: Final = 32  # TENSOR_ALIGNMENT, of where the host's mapped buffers begin
READ_BY_ROW: Final = ", read row by row"


def weight_terms(
    gguf: GGUFFile, buffers: Mapping[Buffer, Sequence[TensorInfo]], *, no_alloc: bool = False
) -> tuple[Term, ...]:
    """Terms of model_bytes, one for each buffer of each file, from what `place_weights` put where.

    What a backend adds to each buffer is there only if it is really allocated, not with `no_alloc`.

    Raises:
        UnsupportedError: a tensor has a type whose size is not known.
        ValueError: the file's alignment is less than llama.cpp maps it with.
    """
    gguf.require_sizes(gguf.tensors)
    return tuple(
        term
        for buffer, tensors in buffers.items()
        for term in (
            _mapped_terms(gguf, buffer, tensors)
            if buffer.mapped
            else (_allocated_term(buffer, tensors, no_alloc=no_alloc),)
        )
    )


def allocated_bytes(buffer: Buffer, tensor: TensorInfo) -> int:
    """Bytes that a tensor takes in a buffer which is not mapped."""
    nbytes = tensor.nbytes or 0
    if buffer == AMX:
        from ggufphys.graph.devices.backends.amx import amx_bytes  # what few builds need

        nbytes = amx_bytes(tensor)
    return buffer.backend.tensor_bytes(nbytes, tensor.ggml_type, tensor.ne[0] if tensor.ne else 1)


def _mapped_terms(gguf: GGUFFile, buffer: Buffer, tensors: Sequence[TensorInfo]) -> Iterator[Term]:
    for index, shard in enumerate(gguf.shards):
        ends = [(t.offset, t.offset + (t.nbytes or 0)) for t in tensors if t.shard == index]
        if not ends:
            continue
        first, last = min(ends)[0], max(end for _, end in ends)
        begins = shard.header.data_offset + first
        if buffer.device == HOST and begins % MAPPED_ALIGNMENT:
            raise ValueError(
                f"{shard.name}: its first mapped tensor begins at byte {begins:,}, expected a multiple of "
                f"{MAPPED_ALIGNMENT} (general.alignment is {shard.header.alignment}): llama.cpp aborts; read the file "
                "into memory instead (--no-mmap)"
            )
        yield Term(
            quantity="model",
            name=f"weights mapped from {shard.name}{READ_BY_ROW if buffer.lazy else ''}",
            nbytes=last - first,
            buffer=buffer.name,
            formula=f"last end {last:,} - first offset {first:,} of {len(ends)} tensors",
            source="src/llama-model-loader.cpp, get_mapping_range",
            device=buffer.device,
        )


def _alike(tensors: Sequence[TensorInfo]) -> Iterator[tuple[int, int]]:
    """A tensor's index for each type and shape, and how many have these: they take as many bytes each."""
    kinds = [(int(tensor.ggml_type), tensor.ne) for tensor in tensors]
    return ((kinds.index(kind), n) for kind, n in Counter(kinds).items())


def _n_buffers(buffer: Buffer, tensors: Sequence[TensorInfo]) -> int:
    """How many buffers of the largest size that the backend allows they are laid into, one behind the other."""
    n = room = 0
    for tensor in sorted(tensors, key=lambda t: t.name.startswith("blk.")):  # as loaders create them
        nbytes = allocated_bytes(buffer, tensor)
        if nbytes > room:
            n, room = n + 1, buffer.backend.max_buffer_bytes
        room -= nbytes
    return n


def _allocated_term(buffer: Buffer, tensors: Sequence[TensorInfo], *, no_alloc: bool) -> Term:
    backend = buffer.backend
    more = 0 if no_alloc or not backend.more_bytes else backend.more_bytes * _n_buffers(buffer, tensors)
    rows = f", rows of quantised ones to {backend.row_padding} elements" if backend.row_padding else ""
    if buffer in (REPACKED, AMX):
        name = "weights repacked for the CPU"
    else:
        name = "weights read into memory" if buffer.device == HOST else "weights"
    unpacked = "" if buffer != AMX else ", with what AMX's layout adds"
    return Term(
        quantity="model",
        name=name,
        nbytes=sum(n * allocated_bytes(buffer, tensors[i]) for i, n in _alike(tensors)) + more,
        buffer=buffer.name,
        formula=f"sum of {len(tensors)} tensors, each padded to {backend.alignment}{rows}{unpacked}"
        + (f", and {more} B more" if more else ""),
        source="ggml/src/ggml-alloc.c, ggml_backend_alloc_ctx_tensors_from_buft_impl",
        device=buffer.device,
    )
