"""How is a model run that gives vectors and no text? What the flags leave open, and why so.

Encoders are never run otherwise, others with --embeddings or --rerank. A text lies in one physical batch, unless its
last token stands for all of it: a decoder reads such a text piece by piece. Several short ones share a batch.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ggufphys import UnsupportedError, open_gguf
from ggufphys.arch import BlockState, RecurrentState, read_hparams, rule_for
from ggufphys.context import ContextParams
from ggufphys.hparams.hparams import HParams
from ggufphys.params import POOLING_TYPES, Params, Pooling
from server.engine.checks import CLASSIFIERS, embeds_only, has_classifier
from server.flags.guessing import named_draft

N_TEXTS: Final = 32  # in a batch
N_WHOLE: Final = 2048  # tokens of a text that lies in one: its buffers grow with them


def gives_vectors(args: argparse.Namespace, hparams: HParams) -> bool:
    """Whether vectors are all that is asked for, or to be had."""
    return getattr(args, "embeddings", False) or embeds_only(hparams)


def vector_params(params: Params, given: Mapping[str, Any], path: Path) -> Params:
    """`params` as a model is run for vectors: no longer than in training, a batch's tokens all outputs.

    `given` are flags, by the names of fields.

    Raises:
        UnsupportedError: the file gives no scores, and they are asked for; or llama.cpp dies of its embeddings.
    """
    with open_gguf(path) as gguf:
        hparams = read_hparams(gguf)
        asked: Pooling = given.get("field_defaults", {}).get("pooling", "model")
        pooling = pooled(asked, hparams)
        if why := rule_for(hparams.arch).aborts_embedding(hparams):
            raise UnsupportedError(f"{path}: {why}")
        if pooling == "rank" and not has_classifier(gguf):
            raise UnsupportedError(
                f"{path}: the file has no classifier ({' or '.join(CLASSIFIERS)}), so nothing can be ranked with it: "
                "leave out --rerank and --pooling rank"
            )
    trained = hparams.n_ctx_train
    n_ctx = min(params.n_ctx or trained, trained or params.n_ctx)
    n_ubatch = min(params.n_ubatch, params.n_batch) if "n_batch" in given else params.n_ubatch
    if not in_pieces(pooling, hparams):
        n_ubatch = n_ubatch if given.keys() & {"n_ubatch", "n_batch"} else min(n_ctx, N_WHOLE)
        n_ctx = min(n_ctx, n_ubatch)
    n_ubatch = max(1, min(n_ubatch, n_ctx))
    n_texts = params.n_seq_max if "n_seq_max" in given else N_TEXTS
    if _keeps_states(hparams):
        n_texts = 1  # llama.cpp divides a batch of several states where the shortest text ends
    return replace(
        params, embeddings=True, pooling=asked, n_ctx=n_ctx, n_batch=n_ubatch, n_ubatch=n_ubatch,
        n_outputs_max=n_ubatch, n_seq_max=min(n_texts, n_ubatch), kv_unified=True,
    )  # fmt: skip


def pooled(asked: Pooling, hparams: HParams) -> Pooling:
    """How vectors of tokens become one: as asked, or as the file says."""
    if asked != "model":
        return asked
    number = hparams.pooling_type
    return POOLING_TYPES[number] if 0 <= number < len(POOLING_TYPES) else "none"


def in_pieces(pooling: Pooling, hparams: HParams) -> bool:
    """Whether a text may be longer than a physical batch: a decoder's, where the last token stands for it, or each.

    Source: llama.cpp 0c1e570 tools/server/server-context.cpp, server_slot::can_split.
    """
    return not embeds_only(hparams) and pooling in ("none", "last", "rank")


def describe_vectors(made: ContextParams, params: Params, hparams: HParams) -> str:
    """What is served, in one line."""
    pooling = pooled(params.pooling, hparams)
    what = "scores of documents (/v1/rerank)" if pooling == "rank" else f"embeddings (pooling {pooling})"
    why = f"{hparams.arch} generates no text: " if embeds_only(hparams) else ""
    n = min(made.n_ctx_seq if in_pieces(pooling, hparams) else made.n_ubatch, params.n_ctx)
    return f"{why}{what} of texts of up to {n:,} tokens, up to {made.n_seq_max} of them in a batch"


def _keeps_states(hparams: HParams) -> bool:
    layers = rule_for(hparams.arch).layers(hparams)
    return any(isinstance(cache, RecurrentState | BlockState) for caches in layers for cache in caches)


def refuse_guesses(args: argparse.Namespace) -> None:
    """Raises ValueError: tokens are to be guessed where none is generated."""
    if args.spec_type or named_draft(args):
        raise ValueError("--spec-type, --model-draft: no token is generated, so none can be guessed; leave them out")
