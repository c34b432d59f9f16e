"""`ggufphys verify MODEL --logits --trace`: in which node of the graph do llama.cpp and the engine part?

Both compute the same graph, node by node and in step. That is done twice. Once each goes its own way: what a node
differs by has then come together since the first layer. Once the engine goes on from llama.cpp's result after every
node: what a node differs by is then its own doing alone, and the first that differs by more than a rounding is the one
to look at.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from ggufphys.builds import PINNED
from ggufphys.builds.asked import installed_build
from ggufphys.params import Params
from refengine.checks.logits import steps
from refengine.checks.node_rows import NodeRow, compare_nodes
from refengine.checks.verify_logits import DEVICE_NMSE
from refengine.model import load
from refengine.peers.llama_logits import TIMEOUT_S, LlamaRequest

THRESHOLD: Final = 1e-6
"""A node by itself differs from llama.cpp's by far less (F32 sums: 1e-13, sums in F16: 1e-8), a wrong one by more.

On a device whose arithmetic has fewer digits it may differ by as much as that device's logits (`device_limit`).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReport:
    """All nodes of all batches in order."""

    model: str
    against: str
    n_prompt: int
    n_decode: int
    seed: int
    flash_attn: bool
    threshold: float | None  # None: each place's own
    rows: tuple[NodeRow, ...]
    llama_build: int = PINNED

    @property
    def beyond(self) -> list[NodeRow]:
        """The nodes that by themselves differ by more than the threshold."""
        return [row for row in self.rows if not row.alone <= self.limit(row.buffer)]

    @property
    def first(self) -> NodeRow | None:
        """The first of the nodes beyond the threshold."""
        return next(iter(self.beyond), None)

    def limit(self, place: str) -> float:
        """The NMSE that a node may have by itself where its result lies there."""
        return max(THRESHOLD, node_limit(place)) if self.threshold is None else self.threshold

    @property
    def exit_code(self) -> int:
        """1 when there is such a node."""
        return 0 if self.first is None else 1


def verify_nodes(
    path: str | os.PathLike[str],
    *,
    against: str | os.PathLike[str] | None = None,
    n_prompt: int = 64,
    n_decode: int = 32,
    seed: int = 0,
    flash_attn: bool = True,
    threshold: float | None = None,
    n_threads: int = 0,
    timeout_s: float = TIMEOUT_S,
    placement: Params | None = None,
) -> TraceReport:
    """Compare every node of a prompt of random tokens and of the steps behind it.

    Args:
        path: the model file, as the engine computes it, activations rounded as ggml does.
        against: the file that llama.cpp computes, another one of the same graph; None for the same.
        n_prompt: tokens at once.
        n_decode: tokens after them, one by one.
        seed: of the tokens.
        flash_attn: attention as one operation.
        threshold: the NMSE that a node may have by itself; None for 1e-6, and more on devices of fewer digits.
        n_threads: as `refengine.load`.
        timeout_s: how long llama.cpp may take for one node.
        placement: devices on which llama.cpp runs some or all layers; None: the CPU alone.

    Raises:
        LlamaError: llama.cpp would not run the model, or did not come back.
        GGUFError, UnsupportedError, OSError: as `refengine.load`.
        UnsupportedError: llama.cpp computes another graph.
        ValueError: more tokens than the model's context holds.
    """
    n_tokens = n_prompt + n_decode
    model = load(path, flash_attn=flash_attn, hold="quantised", emulate=True, n_threads=n_threads, n_ctx=n_tokens)
    if n_tokens > model.h.n_ctx_train:
        raise ValueError(f"{n_tokens} tokens do not fit into the model's context of {model.h.n_ctx_train}")
    tokens = np.random.default_rng(seed).integers(0, model.h.n_vocab, n_tokens).tolist()
    batches = steps(tokens, n_prompt)
    reference = Path(against) if against is not None else model.gguf.shards[0].path
    request = LlamaRequest(
        path=reference, context=model.context, batches=batches, n_threads=model.numerics.n_threads,
        placement=placement,
    )  # fmt: skip
    alone = compare_nodes(model, request, forced=True, timeout_s=timeout_s)
    carried = compare_nodes(model, request, forced=False, timeout_s=timeout_s)
    return TraceReport(
        model=os.fspath(path), against=str(against or path), n_prompt=n_prompt, n_decode=n_decode, seed=seed,
        flash_attn=flash_attn, threshold=threshold,
        llama_build=installed_build(),
        rows=tuple(replace(a, carried=c.carried) for a, c in zip(alone, carried, strict=True)),
    )  # fmt: skip


def node_limit(place: str) -> float:
    """What the arithmetic of a device (Vulkan0, say) may make of one node; 0 for main memory, pinned or not."""
    device = place.rstrip("0123456789")
    return DEVICE_NMSE.get(device, 0.0) if device != place else 0.0


def sections(rows: Sequence[NodeRow]) -> list[tuple[str, list[NodeRow]]]:
    """The rows by layer, of all batches, in order: `input`, `layer 0`, ..., `output`."""
    found: dict[str, list[NodeRow]] = {}
    began, batch = False, -1
    for row in rows:
        if row.batch != batch:
            began, batch = False, row.batch
        began = began or row.layer is not None
        title = f"layer {row.layer}" if row.layer is not None else "output" if began else "input"
        found.setdefault(title, []).append(row)
    return list(found.items())
