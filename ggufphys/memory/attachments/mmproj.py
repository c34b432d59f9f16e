"""How many bytes does an mmproj file take beside the model: its weights, and the buffer its encoder computes in?

Weights are read, never mapped, and only those that llama.cpp asks for. The compute buffer is reserved for a warm-up
image; a larger image, or several encoded at once, make it grow: that much is a ceiling.

Error: the encoders in `ggufphys.clip.models.MODELS` are exact, the others estimates; `python -m bench.mmproj` measures
both. Source: llama.cpp 0c1e570 tools/mtmd/clip.cpp, clip_model_loader::load_tensors, warmup; tools/mtmd/mtmd.cpp,
mtmd_batch_add_chunk.
"""

from collections.abc import Iterator

from ggufphys.clip.builder import ClipBuilder
from ggufphys.clip.hparams import ClipHParams, read_clip
from ggufphys.clip.models import MODELS, generic
from ggufphys.clip.tensors import loaded_tensors
from ggufphys.errors import GGUFError
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.graph.allocating.alloc import allocate
from ggufphys.graph.asserted import first_failure
from ggufphys.graph.devices.backends import CPU, backend_of
from ggufphys.loads.attached import require_attached
from ggufphys.memory.attachments import BATCH_MAX_TOKENS
from ggufphys.memory.terms import Basis, Term
from ggufphys.params import CPU_BUFFER, HOST


def mmproj_terms(
    gguf: GGUFFile,
    *,
    device: str = HOST,
    image_max_tokens: int = 0,
    batch_max_tokens: int = BATCH_MAX_TOKENS,
) -> tuple[Term, ...]:
    """Terms of attachment_bytes and ceilings, for each encoder in the file.

    Args:
        gguf: the open mmproj file.
        device: where it lies: llama.cpp's first device unless --no-mmproj-offload.
        image_max_tokens: as the flag of that name; 0 for what the file says.
        batch_max_tokens: as --mtmd-batch-max-tokens: images are encoded together up to that many tokens.

    Raises:
        ValueError, UnsupportedError, GGUFError: see `read_clip`; llama.cpp does not read the file; a tensor that the
            encoder needs is missing.
    """
    require_attached(gguf)
    return tuple(
        term
        for h in read_clip(gguf, image_max_tokens=image_max_tokens)
        for term in _encoder_terms(gguf, h, device, batch_max_tokens)
    )


def mmproj_basis(gguf: GGUFFile) -> Basis:
    """`exact` when the graphs of all encoders are written, else `estimate`; weights are exact in any case."""
    return "exact" if all(_has_graph(h) for h in read_clip(gguf)) else "estimate"


def encoder_bytes(gguf: GGUFFile, h: ClipHParams, size: tuple[int, int], n_batch: int = 1) -> int:
    """Bytes of the compute buffer for `n_batch` images of `size`.

    Raises:
        GGUFError: a tensor that the encoder needs is missing, or tensors and keys do not go together.
    """
    tensors = {t.name: t for t in _tensors(gguf, h)}
    written = MODELS.get(h.projector.name)
    try:
        graph = (written or generic.build)(ClipBuilder(h, tensors, size, n_batch))
    except KeyError as error:
        raise GGUFError(
            f"{gguf.location}: tensor {error.args[0]!r} is missing, which a {h.projector.name} encoder needs"
        ) from None
    failure = first_failure(graph, by_shape=True) if written else None
    if failure is not None:
        node, expected = failure
        found = " and ".join(f"{source.name or source.op} {source.ne}" for source in node.src)
        raise GGUFError(
            f"{gguf.location}: its {h.projector.name} encoder has a {node.op} of {found}, expected {expected}: "
            "llama.cpp aborts"
        )
    return allocate(graph).buffer_bytes


def _encoder_terms(gguf: GGUFFile, h: ClipHParams, device: str, batch_max_tokens: int) -> Iterator[Term]:
    backend = CPU if device == HOST else backend_of(device)
    kind = f"{h.modality} {h.projector.name}"
    buffer = CPU_BUFFER if device == HOST else device
    tensors = _tensors(gguf, h)
    gguf.require_sizes(tensors)
    left_out = len(gguf.tensors) - len(tensors)
    yield Term(
        quantity="attachment",
        name=f"mmproj: weights ({kind})",
        nbytes=sum(backend.tensor_bytes(t.nbytes or 0, t.ggml_type, (*t.ne, 1)[0]) for t in tensors),
        formula=f"{len(tensors)} tensors, each padded to {backend.alignment}"
        + (f"; {left_out} in the file are not this encoder's" if left_out else ""),
        source="tools/mtmd/clip.cpp, clip_model_loader::load_tensors",
        buffer=buffer,
        device=device,
    )
    if h.modality == "gen.audio":  # llama.cpp reserves nothing for it in advance
        return
    basis = "exact" if _has_graph(h) else "estimate"
    reserved = encoder_bytes(gguf, h, h.warmup)
    yield Term(
        quantity="attachment",
        name=f"mmproj: compute buffer ({kind})",
        nbytes=reserved,
        formula=f"graph of {_size(h, h.warmup)}, laid out by a simulation of ggml's graph allocator ({basis})",
        source="tools/mtmd/clip.cpp, clip_model_loader::warmup",
        buffer=buffer,
        device=device,
    )
    n_batch = _n_batch(h, batch_max_tokens)
    most = encoder_bytes(gguf, h, h.largest, n_batch) if (h.largest, n_batch) != (h.warmup, 1) else reserved
    if most > reserved:
        yield Term(
            quantity="ceiling",
            name=f"mmproj: larger or more images ({kind})",
            nbytes=most - reserved,
            formula=f"graph of {n_batch} x {_size(h, h.largest)}: {most:,}, less the {reserved:,} reserved (estimate)",
            source="tools/mtmd/clip.cpp, clip_image_batch_encode",
            buffer=buffer,
            device=device,
        )


def _tensors(gguf: GGUFFile, h: ClipHParams) -> tuple[TensorInfo, ...]:
    return tuple(loaded_tensors(gguf, h.projector.name, h.modality, h.n_layer))


def _has_graph(h: ClipHParams) -> bool:
    return h.projector.name in MODELS or h.modality == "gen.audio"


def _n_batch(h: ClipHParams, batch_max_tokens: int) -> int:
    """Images of the largest size that are encoded at once."""
    if not h.projector.batched:
        return 1
    n_patches = (h.largest[0] // h.patch_size) * (h.largest[1] // h.patch_size)
    return max(1, batch_max_tokens // max(1, n_patches // h.n_merge**2))


def _size(h: ClipHParams, size: tuple[int, int]) -> str:
    return f"an image of {size[0]} x {size[1]}" if h.modality == "vision" else f"{size[0]:,} frames of sound"
