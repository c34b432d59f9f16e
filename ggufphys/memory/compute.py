"""How many bytes does llama.cpp reserve for intermediate results, and for the logits it hands out?

The compute buffer is as large as the larger of the two graphs that llama.cpp reserves for: a full prompt batch and a
decode step. Source: llama.cpp 0c1e570 src/llama-context.cpp, sched_reserve, output_reserve.
"""

from ggufphys.graph.allocating.layout import Layouts
from ggufphys.graph.batch import lone_prompt, reserved_batches
from ggufphys.graph.models import HEADS, MODELS
from ggufphys.hparams.hparams import HParams
from ggufphys.memory.terms import Basis, Term
from ggufphys.params import ContextParams, ContextType

FLOAT_BYTES = 4


def compute_basis(arch: str, ctx_type: ContextType = "default") -> Basis:
    """`exact` for architectures whose graph is written, `estimate` for those that borrow the generic one.

    A draft context's graph is taken to be as large as the trunk's where it is not written.
    """
    return "exact" if arch in (MODELS if ctx_type == "default" else HEADS) else "estimate"


def compute_terms(layouts: Layouts, context: ContextParams, *, no_alloc: bool = False) -> tuple[Term, ...]:
    """The one term of compute_bytes; with `no_alloc` what llama.cpp's own simulation says: of a full prompt alone."""
    prompt, decode = reserved_batches(context)
    sizes = {prompt: layouts.layout(context, prompt).allocation.buffer_bytes}
    if not no_alloc:
        layouts.decode_counts = layouts.decode_counts or layouts.at_most(context, decode) > sizes[prompt]
        if layouts.decode_counts:
            sizes[decode] = layouts.layout(context, decode).allocation.buffer_bytes
        if layouts.lone_prompt and context.n_seq_max > 1:
            alone = lone_prompt(context)
            sizes[alone] = layouts.layout(context, alone).allocation.buffer_bytes
    batch = max(sizes, key=lambda b: sizes[b])
    return (
        Term(
            quantity="compute",
            name="compute buffer",
            nbytes=sizes[batch],
            buffer="CPU",
            formula=f"graph of {batch.n_tokens} tokens, {batch.n_seqs} sequences, {batch.n_outputs} outputs, "
            f"laid out by a simulation of ggml's graph allocator ({compute_basis(layouts.h.arch, context.ctx_type)})",
            source="ggml/src/ggml-alloc.c, ggml_gallocr_reserve_n",
        ),
    )


def output_terms(h: HParams, context: ContextParams) -> tuple[Term, ...]:
    """The one term of output_bytes: a row of logits for each sequence, as reserved when the context is created."""
    return (
        Term(
            quantity="output",
            name="output buffer",
            nbytes=FLOAT_BYTES * h.n_vocab * context.n_seq_max,
            buffer="CPU",
            formula=f"{h.n_vocab:,} tokens x {context.n_seq_max} sequences x {FLOAT_BYTES} B",
            source="src/llama-context.cpp, output_reserve",
        ),
    )
