"""llama.cpp's logits for batches of tokens, on the CPU and without repacked weights, from a child process."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggufphys.children import describe, environment, module_command
from ggufphys.errors import GGUFPhysError
from ggufphys.params import ContextParams
from refengine.blocks import F32
from refengine.cells import Tokens


class LlamaError(GGUFPhysError):
    """llama.cpp refused or died; the message says how, and what it logged last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaRun:
    """Logits of all tokens in order, `(n_tokens, n_vocab)` (of each batch's last, unless all), and seconds a batch."""

    logits: F32
    seconds: tuple[float, ...]


def llama_logits(
    path: str | os.PathLike[str],
    context: ContextParams,
    batches: Sequence[Tokens],
    *,
    n_threads: int,
    all_logits: bool = True,
) -> LlamaRun:
    """Decode the batches one after the other in one context.

    Raises:
        LlamaError: llama.cpp would not load or decode it, or died.
    """
    handle, name = tempfile.mkstemp(prefix="logits-", suffix=".f32")
    os.close(handle)
    request = {
        "path": os.fspath(path),
        "out": name,
        "all_logits": all_logits,
        "context": {
            "n_ctx": context.n_ctx, "n_batch": max(context.n_batch, context.n_ubatch), "n_ubatch": context.n_ubatch,
            "n_seq_max": context.n_seq_max, "kv_unified": context.kv_unified, "swa_full": context.swa_full,
            "type_k": int(context.type_k), "type_v": int(context.type_v),
            "flash_attn_type": int(context.flash_attn), "n_threads": n_threads, "n_threads_batch": n_threads,
        },
        "batches": [(b.ids.tolist(), b.positions.tolist(), b.sequences.tolist()) for b in batches],
    }  # fmt: skip
    try:
        child = subprocess.run(
            module_command("refengine.llama_child"), input=json.dumps(request), capture_output=True, text=True,
            errors="replace", check=False, env=environment(),
        )  # fmt: skip
        if child.returncode:
            raise LlamaError(f"{path}: llama.cpp ended with {describe(child.returncode)}: {child.stderr[-1500:]}")
        answer = json.loads(child.stdout.splitlines()[-1])
        if "error" in answer:
            raise LlamaError(f"{path}: llama.cpp refused: {answer['error']}")
        logits = np.fromfile(name, np.float32).reshape(-1, answer["n_vocab"])
    finally:
        Path(name).unlink(missing_ok=True)
    return LlamaRun(logits=logits, seconds=tuple(answer["seconds"]))
