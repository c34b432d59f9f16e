"""What may llama-server take beside its buffers, as requests come? Ceilings, in no total: nothing is reserved for them.

* The prompt cache keeps states of earlier prompts in main memory, up to `--cache-ram`.
* Checkpoints let a slot go back where its memory can't be rolled back: with windows, with recurrent layers.
* Rows of logits are reserved for one output a sequence; drafts to be verified want more.

The samplers of its slots are no ceiling: steady decode has them (`ggufphys/memory/process.py`).

Source: llama.cpp 0c1e570 tools/server/server-context.cpp, load_model, create_checkpoint; tools/server/server-task.cpp,
server_prompt_cache; src/llama-context.cpp, output_reserve.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from ggufphys.arch import LayerCache
from ggufphys.hparams.hparams import HParams
from ggufphys.memory.attachments import Server
from ggufphys.memory.attachments.state import needs_checkpoints, state_bytes
from ggufphys.memory.terms import Term
from ggufphys.params import ContextParams, Params

N_PARALLEL_AUTO: Final = 4  # slots, when nobody says how many; then the cache is unified
_LOGIT_BYTES: Final = 4


def server_params(params: Params, *, n_parallel_given: bool, n_draft: int = 0) -> Params:
    """The parameters that llama-server makes of those: slots, and outputs for each with `n_draft` tokens to verify.

    Source: llama.cpp 0c1e570 tools/server/server.cpp, llama_server; common/speculative.cpp,
    common_speculative_get_output_limits.
    """
    if not n_parallel_given:
        params = replace(params, n_seq_max=N_PARALLEL_AUTO, kv_unified=True)
    if params.n_outputs_max:
        return params
    return replace(params, n_outputs_max=max(1, min(params.n_batch, params.n_seq_max * (1 + n_draft))))


def server_terms(
    server: Server,
    h: HParams,
    layers: Sequence[Sequence[LayerCache]],
    context: ContextParams,
    *,
    cell_ext_bytes: int = 0,
    draft_state_bytes: int = 0,
) -> Iterator[Term]:
    """Ceilings of a server; `draft_state_bytes` is a full slot's state of the draft model."""
    whole, partial = (
        state_bytes(layers, context, context.n_ctx_seq, partial=part, cell_ext_bytes=cell_ext_bytes) + draft_state_bytes
        for part in (False, True)
    )
    if server.cache_ram_mib > 0:
        yield _term(
            "prompt cache",
            server.cache_ram_mib << 20,
            f"--cache-ram {server.cache_ram_mib} MiB; a prompt of {context.n_ctx_seq:,} tokens takes {whole:,}",
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
    if n_more > 0:
        yield _term(
            "more rows of logits",
            n_more * h.n_vocab * _LOGIT_BYTES,
            f"{context.n_outputs_max} outputs less the {context.n_seq_max} reserved x {h.n_vocab:,} x {_LOGIT_BYTES} B",
            "src/llama-context.cpp, output_reserve",
        )


def _term(name: str, nbytes: int, formula: str, source: str) -> Term:
    return Term(quantity="ceiling", name=f"server: {name}", nbytes=nbytes, buffer="", formula=formula, source=source)
