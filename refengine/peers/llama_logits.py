"""llama.cpp's logits for batches of tokens, without repacked weights, from a child process; on the CPU unless told."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ggufphys.context import ContextParams
from ggufphys.errors import GGUFPhysError, OutputError
from ggufphys.machine.children import describe, environment, module_command
from ggufphys.params import Params
from refengine.batch import Tokens
from refengine.blocks import F32

TIMEOUT_S: Final = 1800.0


class LlamaError(GGUFPhysError):
    """llama.cpp refused or died; the message says how, and what it logged last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaRun:
    """Logits of all tokens that want them, in order, `(n_wanted, n_vocab)`, and seconds a batch."""

    logits: F32
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaRequest:
    """A model file, how to run it, and the batches to decode one after the other."""

    path: Path
    context: ContextParams
    batches: Sequence[Tokens]
    n_threads: int
    embeddings: bool = False  # of encoders, in place of logits
    placement: Params | None = None  # devices, and what goes where; None: all on the CPU

    def as_json(self, out: Path) -> dict[str, Any]:
        """What the child reads; it writes the logits to `out`."""
        c = self.context
        n_batch = max(c.n_batch, c.n_ubatch, *(len(batch) for batch in self.batches))
        return {
            "path": str(self.path),
            "out": str(out),
            "placement": None if self.placement is None else asdict(self.placement),
            "context": {
                "n_ctx": c.n_ctx, "n_batch": n_batch, "n_ubatch": c.n_ubatch,
                "n_seq_max": c.n_seq_max, "kv_unified": c.kv_unified, "swa_full": c.swa_full,
                "type_k": int(c.type_k), "type_v": int(c.type_v), "flash_attn_type": int(c.flash_attn),
                "n_threads": self.n_threads, "n_threads_batch": self.n_threads,
                "offload_kqv": self.placement is not None and self.placement.offload_kqv, "op_offload": False,
                **({"embeddings": True} if self.embeddings else {}),
            },
            "batches": [
                (b.ids.tolist(), b.positions.tolist(), b.sequences.tolist(), b.outputs.tolist()) for b in self.batches
            ],
        }  # fmt: skip


def not_done(paths: str, timeout_s: float) -> LlamaError:
    """The error for a llama.cpp that does not come back."""
    return LlamaError(
        f"{paths}: llama.cpp gave no answer in {timeout_s:g} s and was ended: either it never comes back from "
        "decoding this model, or it needs longer: ask for fewer tokens, or for more time (--timeout)"
    )


def llama_logits(requests: Sequence[LlamaRequest], *, timeout_s: float = TIMEOUT_S) -> list[LlamaRun]:
    """Run the requests, each with a model and a context of its own.

    Raises:
        LlamaError: llama.cpp would not load or decode one, died, or was not done after `timeout_s`.
        OutputError: there is no room for the logits in the folder for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="logits-") as folder:
        outs = [Path(folder) / f"{i}.f32" for i in range(len(requests))]
        paths = ", ".join(sorted({str(request.path) for request in requests}))
        try:
            child = subprocess.run(
                module_command("refengine.peers.llama_child"),
                input=json.dumps([request.as_json(out) for request, out in zip(requests, outs, strict=True)]),
                capture_output=True, encoding="utf-8", errors="replace", check=False, env=environment(),
                timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise not_done(paths, timeout_s) from None
        if child.returncode:
            raise LlamaError(f"{paths}: llama.cpp ended with {describe(child.returncode)}: {child.stderr[-1500:]}")
        answers = [json.loads(line) for line in child.stdout.splitlines()[-len(requests) :]]
        for request, answer in zip(requests, answers, strict=True):
            if "error" in answer:
                raise LlamaError(f"{request.path}: llama.cpp refused: {answer['error']}")
            if "unwritten" in answer:
                raise OutputError(f"cannot write llama.cpp's logits to {folder}: {answer['unwritten']}")
        return [
            LlamaRun(
                logits=np.fromfile(out, np.float32).reshape(-1, answer["n_vocab"]), seconds=tuple(answer["seconds"])
            )
            for out, answer in zip(outs, answers, strict=True)
        ]
