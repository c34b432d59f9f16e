"""How many bytes does llama.cpp reserve for intermediate results, and for the logits it hands out?

The compute buffer is as large as the larger of the two graphs that llama.cpp reserves for: a full prompt batch and a
decode step. Source: llama.cpp 0c1e570 src/llama-context.cpp, sched_reserve, output_reserve.
"""

from ggufphys.context import ContextParams
from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.devices.placed import Placed, Placement
from ggufphys.graph.devices.sizes import buffer_sizes
from ggufphys.graph.models import HEADS, LATER, MODELS
from ggufphys.hparams.hparams import HParams
from ggufphys.memory.terms import Basis, Term
from ggufphys.params import HOST, ContextType

FLOAT_BYTES = 4
ALWAYS_EMBED = frozenset({"t5"})  # whose contexts have a row of embeddings beside each row of logits


def compute_basis(arch: str, ctx_type: ContextType = "default") -> Basis:
    """`exact` for architectures whose graph is written, `estimate` for those that borrow the generic one.

    A draft context's graph is taken to be as large as the trunk's where it is not written.
    """
    written = arch in MODELS or arch in LATER if ctx_type == "default" else arch in HEADS
    return "exact" if written else "estimate"


def compute_terms(layouts: Layouts, context: ContextParams, placed: Placed) -> tuple[Term, ...]:
    """Terms of compute_bytes, one a device that computes; the host's first."""
    basis = compute_basis(layouts.h.arch, context.ctx_type) if placed.is_proven else "estimate"
    sizes = buffer_sizes(layouts, context, placed)
    batch = sizes.batch
    graph = (
        "its part of the graph"
        if batch is None
        else f"graph of {batch.n_tokens} tokens, {batch.n_seqs} sequences, {batch.n_outputs} outputs"
    )
    return tuple(
        Term(
            quantity="compute",
            name="compute buffer",
            nbytes=nbytes,
            buffer=placed.placement.host.prefix if device == HOST else device,
            formula=f"{graph}, laid out by a simulation of ggml's graph allocator ({basis})",
            source="ggml/src/ggml-alloc.c, ggml_gallocr_reserve_n"
            if batch is not None
            else "ggml/src/ggml-backend.cpp, ggml_backend_sched_split_graph",
            device=device,
        )
        for device, nbytes in sizes.nbytes.items()
    )


def embedding_width(h: HParams, context: ContextParams) -> int:
    """How many embeddings stand beside the logits in a row of outputs: none but in contexts for embeddings, and t5's.

    Source: llama.cpp 0c1e570 src/llama-context.cpp, output_reserve (has_embd).
    """
    return h.n_embd_out if context.embeddings or h.arch in ALWAYS_EMBED else 0


def output_terms(h: HParams, context: ContextParams, placement: Placement) -> tuple[Term, ...]:
    """The one term of output_bytes: a row for each sequence, as reserved when the context is created."""
    n_embd = embedding_width(h, context)
    shown = f"({h.n_vocab:,} tokens + {n_embd:,} of embeddings)" if n_embd else f"{h.n_vocab:,} tokens"
    host = placement.output_host
    more = f" + {host.more_bytes} B" if host.more_bytes else ""
    return (
        Term(
            quantity="output",
            name="output buffer",
            nbytes=FLOAT_BYTES * (h.n_vocab + n_embd) * context.n_seq_max + host.more_bytes,
            buffer=host.prefix,
            formula=f"{shown} x {context.n_seq_max} sequences x {FLOAT_BYTES} B{more}",
            source="src/llama-context.cpp, output_reserve",
        ),
    )
