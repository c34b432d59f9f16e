"""What does a BLAS backend hold beside the buffers? An F32 copy of the largest weight that it multiplies.

Whether llama.cpp is built with one is no property of file or machine: `Params.use_blas` says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ggufphys.context import ContextParams
from ggufphys.gguf import TensorInfo
from ggufphys.graph.allocating.blas import F32_BYTES, Copy, largest_copy
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import Batch, reserved_batches
from ggufphys.graph.devices.placed import AMX, REPACKED, Buffer
from ggufphys.memory.terms import Term
from ggufphys.params import HOST

COPY: Final = "BLAS: weights in F32"
_SOURCE: Final = "ggml/src/ggml-blas/ggml-blas.cpp, ggml_backend_blas_mul_mat"


def blas_terms(
    layouts: Layouts,
    context: ContextParams,
    used: ContextParams,
    batch: Batch,
    placed: Mapping[Buffer, Sequence[TensorInfo]],
) -> Iterator[Term]:
    """The copy that a prompt's `batch` leads to, and what more one with all its logits would.

    `used` is the context as far as that batch fills it, `placed` says where the weights lie.
    """
    elsewhere = frozenset(
        tensor.name
        for buffer, tensors in placed.items()
        if buffer.device != HOST or buffer in (AMX, REPACKED)
        for tensor in tensors
    )
    on_host = all(buffer.device == HOST for buffer in placed)
    built = layouts.samples((None,) * layouts.n_layer).built

    def copy(context: ContextParams, batch: Batch, *, is_whole: bool) -> Copy:
        graph = layouts.graph(context, batch, built)
        return largest_copy(graph, elsewhere=elsewhere, alike=layouts.alike, with_caches=on_host and is_whole)

    prompt = copy(used, batch, is_whole=used == context)
    yield Term(
        quantity="process", name=COPY, nbytes=prompt.nbytes, buffer="", formula=_formula(prompt), source=_SOURCE,
        backing="anon", phase="prefill",
    )  # fmt: skip
    full = copy(context, reserved_batches(context)[0], is_whole=True)
    if full.nbytes > prompt.nbytes:
        yield Term(
            quantity="ceiling", name=f"{COPY}, with logits for each token", nbytes=full.nbytes - prompt.nbytes,
            buffer="", formula=f"{_formula(full)}, less {prompt.nbytes:,}", source=_SOURCE,
        )  # fmt: skip


def _formula(copy: Copy) -> str:
    if not copy.nbytes:
        return "nothing that it multiplies is of another type"
    return f"{copy.nbytes // F32_BYTES:,} elements of {copy.name} x {F32_BYTES} B"
