"""What must hold before llama.cpp is called, because it would abort() the process instead of returning an error?

Each check names the assertion it stands in front of. Source: llama.cpp 0c1e570.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from ggufphys import GGUFFile, UnsupportedError, open_gguf
from ggufphys.arch import read_hparams, rule_for
from ggufphys.context import ContextParams, cache_type, resolve
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.hparams.hparams import HParams
from ggufphys.loads.check import require_data, require_loads
from ggufphys.memory.attachments.tongues import KINDS, NO_TOKENIZER
from ggufphys.params import Params

CLASSIFIERS: Final = ("cls.weight", "cls.output.weight")


def check_model_file(path: str | os.PathLike[str], params: Params | None = None) -> tuple[Path, HParams]:
    """Whether llama.cpp may be given the file: the first shard's path (it insists on that one) and the hyperparameters.

    With `params` also whether it would make a context of it that is run like this.

    Raises:
        GGUFError: not a readable GGUF, or its tensor data is missing.
        RefusedError: llama.cpp would not load it, or die of it.
        UnsupportedError: a GGUF that is no model by itself, or an architecture that this llama.cpp does not know.
        ValueError: llama.cpp would make no context of it, run like this.
        OSError: the path does not exist or may not be read.
    """
    with open_gguf(path) as gguf:
        if gguf.kind != "model":
            raise UnsupportedError(f"{path}: a GGUF file of kind {gguf.kind!r}, which cannot be run by itself")
        require_data(gguf)
        require_loads(gguf, params)
        return gguf.shards[0].path, read_hparams(gguf)


def check_serves(path: str | os.PathLike[str]) -> None:
    """Whether text or vectors can be served from a file that loads: what the loaded model would tell, told before.

    Raises:
        UnsupportedError: an encoder-decoder or diffusion model, one without a tokenizer, or of which llama.cpp dies.
        GGUFError, OSError: as `check_model_file`.
    """
    with open_gguf(path) as gguf:
        hparams = read_hparams(gguf)
        rule = rule_for(hparams.arch)
        if rule.is_diffusion:
            raise UnsupportedError(f"{path}: a diffusion model ({hparams.arch}), which is not served yet")
        if rule.has_encoder and rule.has_decoder:
            raise UnsupportedError(
                f"{path}: an encoder with a decoder behind it ({hparams.arch}): it answers what its encoder has read, "
                "which is not served (an encoder by itself is, for embeddings)"
            )
        if why := rule.aborts_later(hparams):
            raise UnsupportedError(f"{path}: {why}")
        if KINDS.get(gguf.get_str("tokenizer.ggml.model", "")) == NO_TOKENIZER:
            raise UnsupportedError(f"{path}: the file has no tokenizer, so text cannot be served from it")


def has_classifier(gguf: GGUFFile) -> bool:
    """Whether the file has what makes a score of a hidden state."""
    return any(name in gguf.tensors_by_name for name in CLASSIFIERS)


def embeds_only(hparams: HParams) -> bool:
    """Whether a model gives vectors of texts and generates none: it reads a sequence as a whole.

    Of decoders those whose file says that each token sees all others (`attention.causal` false).
    """
    return rule_for(hparams.arch).reads_at_once or not hparams.causal_attn


def check_context(params: Params, hparams: HParams) -> ContextParams:
    """The parameters of a context as llama.cpp resolves them, if it can create one.

    Raises:
        ValueError: llama.cpp would refuse the combination, or abort on it.
    """
    resolved = resolve(params, n_ctx_train=hparams.n_ctx_train, causal_attn=hparams.causal_attn)
    block_size = SIZES[cache_type(params.type_k)].block_size
    if not resolved.flash_attn and hparams.n_embd_head_k % block_size:
        # With flash attention llama_init_from_model checks this itself; without, ggml_row_size asserts.
        raise ValueError(
            f"type_k {params.type_k} stores blocks of {block_size}, which does not divide n_embd_head_k = "
            f"{hparams.n_embd_head_k}: use f16, f32 or bf16"
        )
    return resolved


def one_output_per_sequence(params: Params) -> Params:
    """`params` with `n_outputs_max` set to `n_seq_max` unless it was given.

    A generation samples one row of logits for each sequence and step; llama.cpp's default reserves n_batch rows, which
    with a vocabulary of 152k takes the compute buffer from 5 MiB to 297 MiB.
    """
    return params if params.n_outputs_max else replace(params, n_outputs_max=params.n_seq_max)
