"""What does guessing ahead ask of the model itself: its heads' weights, states to go back to, rows for who guesses?

Heads (MTP) and drafts that go on from the model's states read them for every token of a batch, not for those alone
whose logits are wanted: the output buffer has them beside the logits from the first batch on.

Source: llama.cpp 0c1e570 common/common.h, need_n_rs_seq; common/common.cpp, common_model_params_to_llama (load_mtp),
common_context_params_to_llama; common/speculative.cpp, common_speculative_init_result,
common_speculative_impl_draft_mtp and -eagle3 (llama_set_embeddings_nextn, llama_set_embeddings_layer_inp);
src/llama-context.cpp, output_reserve.
"""

from collections.abc import Iterator

from ggufphys.arch.table import LATER, RULES
from ggufphys.context import ContextParams
from ggufphys.frozen import replace
from ggufphys.graph.devices.placed import Placement
from ggufphys.hparams.hparams import HParams
from ggufphys.memory.attachments import Attachments, Draft, Heads
from ggufphys.memory.compute import FLOAT_BYTES
from ggufphys.memory.terms import Term
from ggufphys.params import Params


def as_guessed(params: Params, attachments: Attachments) -> Params:
    """The model's own parameters: states that guesses can be taken back from, and the heads where they guess."""
    if attachments.heads is not None:
        return replace(params, n_rs_seq=attachments.heads.n_max, load_mtp=True)
    draft = attachments.draft
    if draft is not None and _goes_on(draft):
        return replace(params, n_rs_seq=draft.n_max)
    return params


def heads_params(heads: Heads, params: Params, context: ContextParams) -> Params:
    """The heads' own context, beside a `context` that the model's own parameters made."""
    return replace(
        params, n_ctx=context.n_ctx, ctx_type="mtp", n_rs_seq=0, type_k=heads.type_k, type_v=heads.type_v,
        n_outputs_max=params.n_seq_max, embeddings=False, pooling="model",
    )  # fmt: skip


def states_read(h: HParams, context: ContextParams, placement: Placement, attachments: Attachments) -> Iterator[Term]:
    """The term of attachment_bytes for what the model hands to who guesses."""
    draft = attachments.draft
    if attachments.heads is None and (draft is None or not _goes_on(draft)):
        return
    layers = draft.gguf.get_array(f"{draft.gguf.architecture}.target_layers") if draft is not None else None
    n_rows, width = (len(layers), h.n_embd) if layers else (1, h.n_embd_out)
    host = placement.output_host
    yield Term(
        quantity="attachment",
        name="states for the draft",
        nbytes=FLOAT_BYTES * n_rows * width * context.n_batch,
        buffer=host.prefix,
        formula=f"{n_rows} rows of {width:,} x {context.n_batch:,} tokens of a batch x {FLOAT_BYTES} B, in the output "
        "buffer",
        source="src/llama-context.cpp, output_reserve",
    )


def _goes_on(draft: Draft) -> bool:
    """Whether it goes on from the model's states. What is unknown of it is told by its name, where it is predicted."""
    rule = RULES.get(draft.gguf.architecture) or LATER.get(draft.gguf.architecture)
    return rule is not None and rule.is_draft
