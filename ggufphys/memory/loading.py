"""What does loading hold for a moment, and what does it leave behind that nobody uses?

The file's metadata is held until the model is loaded: of that, what counts is the vocabulary's strings.

With mmap the whole file is mapped and read; what lies outside of the tensors that stay mapped is given back at the end.
Without, tensors in a layout of their own, and those of devices, are read into a staging buffer as large as the tensor,
the biggest first, before any others are read. Direct io reads every tensor through an aligned buffer of its own.

glibc's malloc returns buffers to the system while they are larger than a threshold, which follows the sizes that were
given back, up to 32 MiB. Of staging buffers below that the heap keeps one, for smaller ones to come.

Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, load_all_data, init_mappings; src/llama-mmap.cpp,
read_aligned_chunk; src/llama-model.cpp, load_tensors; glibc malloc/malloc.c, __libc_free (mmap_threshold).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.graph.devices.placed import AMX, REPACKED, Buffer
from ggufphys.memory.terms import Backing, Term
from ggufphys.memory.vocabulary import metadata_bytes
from ggufphys.memory.weights import allocated_bytes
from ggufphys.params import HOST, Params

MALLOC_THRESHOLDS: Final = (128 << 10, 32 << 20)  # DEFAULT_MMAP_THRESHOLD_MIN and _MAX, 64 bit
UPLOADS: Final = 4  # buffers for uploads to devices that read pinned memory by themselves: n_buffers
UPLOAD_BYTES: Final = (1 << 20, 64 << 20)  # each, and with direct io: buffer_size
_LAYOUTS: Final = (AMX, REPACKED)
_LOADER: Final = "src/llama-model-loader.cpp, load_all_data"

Placed = Mapping[Buffer, Sequence[TensorInfo]]


def loading_terms(gguf: GGUFFile, placed: Placed, params: Params) -> Iterator[Term]:
    """Transient terms of the phase "weights": what is held beside that which is resident at its end."""
    yield _transient("anon", "metadata while loading", *metadata_bytes(gguf))
    if params.use_mmap:
        kept = sum(_mapped_bytes(placed, index) for index in range(len(gguf.shards)))
        nbytes = max(0, gguf.file_bytes - kept)
        yield _transient("file", "mapped while loading", nbytes, f"{gguf.file_bytes:,} of file less {kept:,} that stay")
        return
    end = sum(allocated_bytes(b, t) for b, tensors in placed.items() if _allocated(b) for t in tensors)
    most, when = max(_moments(placed, params), default=(0, ""))
    formula = f"{most:,} while {when} is read, less {end:,} in the end" if most > end else "none beside what stays"
    yield _transient("anon", "staging buffer", max(0, most - end), formula)


def kept_by_malloc(placed: Placed, params: Params) -> int:
    """Bytes that the heap keeps of staging buffers; later buffers that are smaller are taken from them.

    The first buffer below the upper threshold goes back to the system when it is freed, and the threshold rises to its
    size: whatever is as small from then on comes from the heap.
    """
    if params.use_mmap:
        return 0
    tensors = [t for _, t in _staged(placed)]
    if params.use_direct_io:
        tensors += _read_in_place(placed)
    low, high = MALLOC_THRESHOLDS
    below = sorted((t.nbytes or 0 for t in tensors if low <= (t.nbytes or 0) <= high), reverse=True)
    return below[1] if len(below) > 1 else 0


def _mapped_bytes(placed: Placed, shard: int) -> int:
    """The stretch of a file from the first to the last tensor in any buffer that is mapped."""
    ends = [
        (t.offset, t.offset + (t.nbytes or 0))
        for buffer, tensors in placed.items()
        for t in tensors
        if buffer.mapped and t.shard == shard
    ]
    return max(end for _, end in ends) - min(ends)[0] if ends else 0


def _moments(placed: Placed, params: Params) -> Iterator[tuple[int, str]]:
    """What weights and the buffers they are read through hold while each tensor is read."""
    in_place = _read_in_place(placed)
    # Locking makes all of a buffer resident before anything is read into it.
    held = sum(t.nbytes or 0 for t in in_place) if params.use_mlock else 0
    if any(map(_uploads, placed)):
        yield held + UPLOADS * UPLOAD_BYTES[params.use_direct_io], "a device's share"
    copies = 2 if params.use_direct_io else 1  # the aligned one that the file is read into, and the staging buffer
    for buffer, tensor in _staged(placed):
        held += allocated_bytes(buffer, tensor) if buffer.device == HOST else 0
        yield held + copies * (tensor.nbytes or 0), tensor.name
    if params.use_direct_io:
        for tensor in in_place:
            held += tensor.nbytes or 0
            yield held + (tensor.nbytes or 0), tensor.name


def _staged(placed: Placed) -> list[tuple[Buffer, TensorInfo]]:
    """Tensors that go through a staging buffer of their own size, in order: by buffer's name, the biggest first."""
    buffers = (b for b in placed if b in _LAYOUTS or (b.device != HOST and not _uploads(b)))
    return [
        (buffer, tensor)
        for buffer in sorted(buffers, key=lambda b: b.name)
        for tensor in sorted(placed[buffer], key=lambda t: t.nbytes or 0, reverse=True)
    ]


def _read_in_place(placed: Placed) -> list[TensorInfo]:
    """Tensors that are read to where they stay: those outside of layers first, as loaders create them."""
    tensors = [t for b, held in placed.items() if _allocated(b) and b not in _LAYOUTS for t in held]
    return sorted(tensors, key=lambda t: t.name.startswith("blk."))


def _allocated(buffer: Buffer) -> bool:
    return buffer.device == HOST and not buffer.mapped


def _uploads(buffer: Buffer) -> bool:
    """Does this device take weights from pinned buffers, a piece at a time?"""
    return buffer.device != HOST and buffer.backend.pinned is not None


def _transient(backing: Backing, name: str, nbytes: int, formula: str) -> Term:
    return Term(
        quantity="transient", name=name, nbytes=nbytes, buffer="", formula=formula, source=_LOADER,
        backing=backing, phase="weights",
    )  # fmt: skip
