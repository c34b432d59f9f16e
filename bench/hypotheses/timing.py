"""How long does a model take here? A prompt and steps behind it, of one sequence or several, through llama.cpp."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ggufphys.context import pad_ctx
from ggufphys.params import Device, Params
from server.engine.errors import EngineError
from server.engine.llama.amx import guard
from server.engine.llama.batch import Batch
from server.engine.llama.devices import available_devices
from server.engine.llama.library import create_context, default_threads, load_library, load_model, system_info
from server.engine.llama.vocab import Vocab

N_BATCH: Final = 2048
N_STEPS: Final = 48
ENOUGH_S: Final = 4.0  # steps that take so long together are enough, but for the first few
FEWEST: Final = 4
ROUNDS: Final = 3
FAULTS: Final = 50  # pages read from the disk while it runs: a few say nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds: of the prompt's parts, of one step (the median); and whether pages were read from the disk."""

    tokenize_s: float
    prompt_s: float
    choose_s: float
    step_s: float
    paged: bool


def physical_cores() -> int:
    """Cores that this process may use."""
    return default_threads()


def gpus() -> tuple[Device, ...]:
    """The GPUs that this build of llama.cpp finds."""
    return available_devices(load_library())


def timed(
    path: Path, *, n_seq: int = 1, n_prompt: int = 256, n_threads: int = 0, on_gpu: bool = False, repack: bool = True
) -> Timed:
    """Time one run, after a shorter one that warms caches up; `on_gpu` puts all layers onto the GPUs there are.

    Raises:
        GGUFError, UnsupportedError, EngineError: the model can't be read or run.
    """
    params, _ = guard(
        Params(
            n_ctx=n_seq * pad_ctx(n_prompt + N_STEPS), n_batch=max(N_BATCH, n_seq * n_prompt), n_seq_max=n_seq,
            n_threads=n_threads, use_extra_bufts=repack, devices=gpus() if on_gpu else (),
        ),
        info=system_info(),
    )  # fmt: skip
    with load_model(path, params) as model, create_context(model, params) as context:
        vocab = Vocab(model)
        text = "The quick brown fox jumps over the lazy dog. " * (n_prompt // 8 + 1)
        text = text[: len(text) * n_prompt // len(vocab.tokenize(text)) + 4]

        def decode(tokens: list[int], start: int) -> float:
            batch.clear()
            for seq in range(n_seq):
                batch.add(tokens, seq_id=seq, start=start, logits_of_last=True)
            began = time.perf_counter()
            if code := batch.decode(context):
                raise EngineError(f"{path}: llama_decode gave {code}")
            return time.perf_counter() - began

        with Batch(context, context.params.n_batch) as batch:
            decode([1] * min(n_prompt, 32), 0)
            context.clear()
            faults = _page_faults()
            began = time.perf_counter()
            tokens = list(vocab.tokenize(text))[:n_prompt]
            tokenize_s = time.perf_counter() - began
            prompt_s = decode(tokens, 0)
            began = time.perf_counter()
            pointer = context.api.llama_get_logits(context.pointer)
            token = int(np.ctypeslib.as_array(pointer, (n_seq, vocab.n_vocab))[0].argmax())
            vocab.piece(token)
            choose_s = time.perf_counter() - began
            steps: list[float] = []
            while len(steps) < FEWEST or (len(steps) < N_STEPS and sum(steps) < ENOUGH_S):
                steps.append(decode([token], n_prompt + len(steps)))
            return Timed(
                tokenize_s=tokenize_s, prompt_s=prompt_s, choose_s=choose_s, step_s=float(np.median(steps)),
                paged=_page_faults() - faults > FAULTS,
            )  # fmt: skip


def step_ratios(path: Path, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[Timed, Timed]]:
    """Both ways of running it, in turn, `ROUNDS` times: what else the machine does meanwhile, both bear.

    Raises as `timed` does.
    """
    return [(timed(path, **one), timed(path, **other)) for _ in range(ROUNDS)]


def _page_faults() -> int:
    """Pages that this process had to wait for; 0 where the system does not say."""
    if sys.platform == "win32":
        import psutil  # of an extra, which help for a command does not need

        return int(psutil.Process().memory_info().num_page_faults)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
