"""The same batches here and in llama.cpp: how far are the logits from each other?"""

from collections.abc import Sequence

import numpy as np

from refengine.batch import Tokens
from refengine.checks.logits import Agreement, agreement, steps
from refengine.model import Model
from refengine.peers.llama_logits import TIMEOUT_S, LlamaRequest, llama_logits


def compare_logits(
    models: Sequence[Model], tokens: Sequence[int], n_prompt: int, *, timeout_s: float = TIMEOUT_S
) -> list[Agreement]:
    """The first `n_prompt` tokens at once, the others one by one, here and in llama.cpp: for each model.

    Raises as `compare_batches` does.
    """
    return compare_batches(models, steps(tokens, n_prompt), timeout_s=timeout_s)


def compare_batches(
    models: Sequence[Model], batches: Sequence[Tokens], *, timeout_s: float = TIMEOUT_S
) -> list[Agreement]:
    """The same batches one after the other, here and in llama.cpp: for each model.

    Raises:
        LlamaError: llama.cpp would not run a model.
        ValueError: as `Model.decode`.
    """
    requests = [
        LlamaRequest(
            path=model.gguf.shards[0].path, context=model.context, batches=batches,
            n_threads=model.numerics.n_threads,
        )
        for model in models
    ]  # fmt: skip
    found = []
    for model, run in zip(models, llama_logits(requests, timeout_s=timeout_s), strict=True):
        model.reset()
        ours = np.concatenate([model.decode(batch) for batch in batches])
        found.append(agreement(run.logits, ours))
    return found
