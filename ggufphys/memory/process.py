"""How much resident memory will the process have in steady decode: buffers as far as touched, and the rest?

Reserved is not resident: of the compute buffer only what a batch writes is touched; of the file, all of it (llama.cpp
asks for the whole mapping in advance). The moment meant is after one prompt of a full physical batch and some decode
steps, with logits for the last token only.

Error: measured by `ggufphys measure`, see docs/measure.md. On other systems than Linux the split differs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ggufphys import host
from ggufphys.gguf import GGUFFile
from ggufphys.graph.alloc import touched_bytes
from ggufphys.graph.batch import Batch, reserved_batches
from ggufphys.graph.layout import Layouts
from ggufphys.graph.work import work_bytes
from ggufphys.memory.terms import Term, total
from ggufphys.params import HOST, ContextParams, Params, pad_ctx

# Measured on Linux x86-64 with CPython 3.11 and llama-cpp-python 0.3.36 (`ggufphys measure`, phase "library");
# `measure` replaces it by what it finds in the same run.
BASE_BYTES: Final = 44 << 20
# llama.cpp's own code that is paged in while a model loads and runs; measured likewise, as the growth of RssFile that
# no mapping of the model explains.
CODE_BYTES: Final = 2_400 << 10
# Graph, scheduler and thread bookkeeping, measured as the growth of RssAnon that no term below explains.
BOOKKEEPING_BYTES: Final = 2_000 << 10

UNICODE_TABLE_BYTES: Final = 2 * 0x110000  # src/unicode.cpp, unicode_cpt_flags_array: 16 bits a code point
# src/llama-vocab.cpp, llama_vocab::impl: id_to_token (40), token_to_id (node of 64, bucket 12), piece cache (32)
TOKEN_BYTES: Final = 40 + 64 + 12 + 32
VOCABULARY: Final = "vocabulary"
MERGE_BYTES: Final = 96 + 12  # bpe_ranks: a node with two strings and a rank, and its bucket


def process_terms(
    gguf: GGUFFile,
    layouts: Layouts,
    params: Params,
    context: ContextParams,
    buffers: Sequence[Term],
    *,
    repacked: frozenset[str],
    base_bytes: int | None = None,
    n_prompt: int | None = None,
) -> tuple[Term, ...]:
    """Terms of process_bytes.

    `buffers` are the terms of all other quantities, of which the host's count; `repacked` the names of tensors that
    the CPU repacks, `base_bytes` the empty process, `n_prompt` the longest prompt so far (None: at least a physical
    batch).
    """
    resident = [replace(t, quantity="process") for t in buffers if t.quantity != "compute" and t.device == HOST]
    if any(term.device != HOST for term in buffers):  # the graph is cut: take what the host reserves as touched
        reserved = touched = total(buffers, "compute", HOST)
        work = 0
    else:
        reserved, touched, work = _compute_touched(layouts, params, context, repacked, n_prompt)
    return (
        _term(
            "interpreter and library",
            BASE_BYTES if base_bytes is None else base_bytes,
            "measured before the model is loaded" if base_bytes is not None else "measured once, Linux x86-64",
        ),
        *resident,
        _term("compute buffer, touched", touched, f"what one batch writes of {reserved:,} reserved"),
        _term("kernels' scratch memory", work, "what the hungriest matrix product asks for"),
        _term(VOCABULARY, *_vocabulary(gguf)),
        _term("llama.cpp's code and bookkeeping", CODE_BYTES + BOOKKEEPING_BYTES, "measured once, Linux x86-64"),
    )


def _compute_touched(
    layouts: Layouts, params: Params, context: ContextParams, repacked: frozenset[str], n_prompt: int | None
) -> tuple[int, int, int]:
    """Bytes reserved, bytes written by a prompt batch with one output, bytes of scratch."""
    reserved = layouts.layout(context, reserved_batches(context)[0])
    buffer_bytes = reserved.allocation.buffer_bytes
    n_tokens = min(context.n_ubatch, context.n_ctx_seq, n_prompt or context.n_ubatch)
    if context.n_seq_max > 1:  # another shape than the reserved one: take all of it as touched
        return buffer_bytes, buffer_bytes, 0
    used = replace(context, n_ctx_seq=min(context.n_ctx_seq, pad_ctx(n_tokens)))
    actual = layouts.graph(used, Batch(n_tokens=n_tokens, n_seqs=1, n_outputs=1), reserved.layers)
    work = work_bytes(
        actual, params.n_threads or 1,
        repacked=repacked, cpu_features=host.cpu_features(), alike=layouts.alike,
    )  # fmt: skip
    return buffer_bytes, touched_bytes(reserved.allocation, actual), work


def _vocabulary(gguf: GGUFFile) -> tuple[int, str]:
    tokens, merges = gguf.get_array("tokenizer.ggml.tokens"), gguf.get_array("tokenizer.ggml.merges")
    n_tokens, n_merges = len(tokens or ()), len(merges or ())
    nbytes = UNICODE_TABLE_BYTES + n_tokens * TOKEN_BYTES + n_merges * MERGE_BYTES
    return nbytes, (
        f"{n_tokens:,} tokens x {TOKEN_BYTES} B + {n_merges:,} merges x {MERGE_BYTES} B + Unicode table "
        f"{UNICODE_TABLE_BYTES:,}"
    )


def _term(name: str, nbytes: int, formula: str) -> Term:
    return Term(quantity="process", name=name, nbytes=nbytes, buffer="", formula=formula, source="ggufphys measure")
