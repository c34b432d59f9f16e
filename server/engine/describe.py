"""What does the HTTP side learn of a model? What its file says, and what whoever runs it counted."""

from pathlib import Path

from ggufphys import open_gguf
from ggufphys.hparams.hparams import HParams
from server.engine.checks import has_classifier
from server.engine.model_info import POOLINGS, ModelInfo
from server.engine.runner import Words


def describe(
    path: Path, words: Words, *, name: str, hparams: HParams, n_ctx_seq: int, n_params: int, model_bytes: int
) -> ModelInfo:
    """The model for the HTTP side; `name` empty: as the file has it."""
    with open_gguf(path) as gguf:
        own_name = gguf.name
        template, tool_template, rank_template = (
            gguf.get_str(f"tokenizer.chat_template{of}", "") for of in ("", ".tool_use", ".rerank")
        )
        scores = has_classifier(gguf)
        pooling = gguf.get_int(f"{gguf.architecture}.pooling_type", 0)
    return ModelInfo(
        name=name or own_name,
        n_ctx_seq=n_ctx_seq,
        n_ctx_train=hparams.n_ctx_train,
        n_vocab=words.n_vocab,
        n_embd=hparams.n_embd,
        n_params=n_params,
        model_bytes=model_bytes,
        chat_template=template,
        tool_template=tool_template,
        rank_template=rank_template,
        scores=scores,
        bos_text="" if words.bos is None else words.text((words.bos,)),
        eos_text="" if words.eos is None else words.text((words.eos,)),
        adds_bos=words.adds_bos,
        pooling=next((name for name, number in POOLINGS.items() if number == pooling), "none"),
    )
