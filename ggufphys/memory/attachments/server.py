"""What may llama-server take beside its buffers, as requests come? Ceilings, in no total: nothing is reserved for them.

* The prompt cache keeps states of earlier prompts in main memory, up to `--cache-ram`.
* Checkpoints let a slot go back where its memory can't be rolled back: with windows, with recurrent layers.
* Rows of logits are reserved for one output a sequence; drafts to be verified want more.

The samplers of its slots are no ceiling: steady decode has them (`ggufphys/memory/process.py`).

Source: llama.cpp 0c1e570 tools/server/server-context.cpp, load_model, create_checkpoint; tools/server/server-task.cpp,
server_prompt_cache; src/llama-context.cpp, output_reserve.
"""

from collections.abc import Iterator, Sequence

from ggufphys.arch import LayerCache
from ggufphys.context import ContextParams
from ggufphys.frozen import replace
from ggufphys.hparams.hparams import HParams
from ggufphys.memory.attachments import Server
from ggufphys.memory.attachments.state import cell_ext_bytes, needs_checkpoints, state_bytes
from ggufphys.memory.compute import FLOAT_BYTES, embedding_width
from ggufphys.memory.predict import Predictor
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Term
from ggufphys.params import Params


def predict_served(predictor: Predictor, server: Server, params: Params) -> MemoryPrediction:
    """A model's prediction with what llama-server may take later. Raises what `predict_memory` does."""
    prediction = predictor.predict(params)
    terms = server_terms(
        server, predictor.h, predictor.rule.layers(predictor.h), prediction.context,
        cell_ext_bytes=cell_ext_bytes(predictor.gguf),
    )  # fmt: skip
    notes = (*prediction.notes, *server_notes(server))
    return replace(prediction, terms=(*prediction.terms, *terms), notes=notes)


def server_notes(server: Server) -> Iterator[str]:
    """Notes on what may grow without a ceiling."""
    if server.cache_ram_mib < 0:
        yield "--cache-ram -1: the prompt cache has no limit in bytes, so there is no ceiling for it"


def server_terms(
    server: Server,
    h: HParams,
    layers: Sequence[Sequence[LayerCache]],
    context: ContextParams,
    *,
    cell_ext_bytes: int,
    draft_states: tuple[int, int] = (0, 0),
) -> Iterator[Term]:
    """Ceilings of a server; `draft_states` are a full slot's states of the draft model, whole and partial, in bytes."""
    n_tokens = min(context.n_ctx_seq, h.n_ctx_train or context.n_ctx_seq)  # a slot has no more
    whole, partial = (
        state_bytes(layers, context, n_tokens, partial=part, cell_ext_bytes=cell_ext_bytes) + of_draft
        for part, of_draft in zip((False, True), draft_states, strict=True)
    )
    if server.cache_ram_mib > 0:
        yield _term(
            "prompt cache",
            server.cache_ram_mib << 20,
            f"--cache-ram {server.cache_ram_mib} MiB; a prompt of {n_tokens:,} tokens takes {whole:,}",
            "tools/server/server-task.cpp, server_prompt_cache",
        )
    if server.n_ctx_checkpoints > 0 and needs_checkpoints(layers, context):
        yield _term(
            "context checkpoints",
            context.n_seq_max * server.n_ctx_checkpoints * partial,
            f"{context.n_seq_max} slots x {server.n_ctx_checkpoints} checkpoints x {partial:,} (partial state)",
            "tools/server/server-context.cpp, create_checkpoint",
        )
    n_more = context.n_outputs_max - context.n_seq_max
    width = h.n_vocab + embedding_width(h, context)
    if n_more > 0:
        yield _term(
            "more rows of logits",
            n_more * width * FLOAT_BYTES,
            f"{context.n_outputs_max} outputs less the {context.n_seq_max} reserved x {width:,} x {FLOAT_BYTES} B",
            "src/llama-context.cpp, output_reserve",
        )


def _term(name: str, nbytes: int, formula: str, source: str) -> Term:
    return Term(quantity="ceiling", name=f"server: {name}", nbytes=nbytes, buffer="", formula=formula, source=source)
