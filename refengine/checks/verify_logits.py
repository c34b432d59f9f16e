"""`ggufphys verify MODEL --logits`: are llama.cpp's logits those that the model's graph gives in numpy?

Two right computations need not agree in all digits. Activations are rounded (to F16, or to blocks for quantised
weights) in every layer; where two sums differ in F32's last bit, a rounding now and then goes the other way, and the
next layers pass that on. How far that goes in a given model llama.cpp shows itself: with flash attention and without it
computes the same in two orders. Our logits must not be much further from llama.cpp's than those are from each other.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ggufphys.builds import PINNED
from ggufphys.builds.asked import installed_build
from ggufphys.gguf.ggml_types import SIZES, GGMLType
from ggufphys.params import Params
from refengine.checks.logits import Agreement, agreement, steps
from refengine.model import Model, load
from refengine.peers.llama_logits import TIMEOUT_S, LlamaRequest, llama_logits
from refengine.peers.simd import detected

Progress = Callable[[int, int, str], None]
EXACT_NMSE: Final = 1e-7  # what an F16 cache alone may make, whatever llama.cpp differs from itself
TIMES_NOISE: Final = 2
DEVICE_NMSE: Final[Mapping[str, float]] = {"Vulkan": 6e-5}
"""What a backend's own arithmetic may make, by the beginning of its devices' names.

Vulkan multiplies and adds in F16 where the device can. RPC's workers compute as whatever they run on.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitsRow:
    """One way of running the model: how far our logits are from llama.cpp's, and how far they may be.

    `limit` is None where nothing is asserted: activations are not quantised as ggml does.
    """

    flash_attn: bool
    emulate: bool
    found: Agreement
    limit: float | None

    @property
    def ok(self) -> bool:
        """Whether it is within the limit."""
        return self.limit is None or self.found.nmse <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitsReport:
    """All ways; `noise` is the NMSE between llama.cpp's own logits with and without flash attention."""

    model: str
    n_prompt: int
    n_decode: int
    seed: int
    noise: float
    rows: tuple[LogitsRow, ...]
    devices: tuple[str, ...] = ()
    llama_build: int = PINNED

    @property
    def exit_code(self) -> int:
        """1 when a row is beyond its limit."""
        return 0 if all(row.ok for row in self.rows) else 1


def verify_logits(
    path: str | os.PathLike[str],
    *,
    n_prompt: int = 64,
    n_decode: int = 32,
    seed: int = 0,
    timeout_s: float = TIMEOUT_S,
    progress: Progress | None = None,
    placement: Params | None = None,
) -> LogitsReport:
    """Compare a prompt of random tokens and steps behind it, with flash attention and without.

    It is computed twice: as ggml does, activations quantised and, where they are followed, its sums to the bit; and
    plainly. A file without quantised weights is computed plainly alone where the sums are not followed.

    `placement` puts layers on devices; what such a backend computes with fewer digits widens the limit (`DEVICE_NMSE`).
    `progress` is told how many of all tokens of all ways are done, of how many, and what comes next.

    Raises:
        LlamaError: llama.cpp would not run the model.
        GGUFError, UnsupportedError, OSError: as `refengine.load`.
        ValueError: more tokens than the model's context holds.
    """
    models = {flash: load(path, flash_attn=flash, hold="quantised") for flash in (False, True)}
    first = models[False]
    n_tokens = n_prompt + n_decode
    if n_tokens > first.context.n_ctx_seq:
        raise ValueError(f"{n_tokens} tokens do not fit into the model's context of {first.context.n_ctx_seq}")
    tokens = np.random.default_rng(seed).integers(0, first.h.n_vocab, n_tokens).tolist()
    batches = steps(tokens, n_prompt)
    requests = [
        LlamaRequest(
            path=model.gguf.shards[0].path, context=model.context, batches=batches,
            n_threads=model.numerics.n_threads, placement=placement,
        )
        for model in models.values()
    ]  # fmt: skip
    told = progress or (lambda done, total, now: None)
    ways = [
        (flash, emulate)
        for flash, model in models.items()
        for emulate in ((True, False) if _is_quantised(model) or detected() else (False,))
    ]
    done, total = 0, n_tokens * len(ways)
    told(done, total, "llama.cpp")
    theirs = dict(zip(models, (run.logits for run in llama_logits(requests, timeout_s=timeout_s)), strict=True))
    noise = agreement(theirs[False], theirs[True]).nmse
    devices = () if placement is None else tuple(device.name for device in placement.devices)
    limit = max(EXACT_NMSE, TIMES_NOISE * noise, *map(device_limit, devices))
    rows = []
    for flash, emulate in ways:
        model = models[flash]
        model.numerics = replace(model.numerics, emulate=emulate, simd=detected())
        model.reset()
        ours = []
        for batch in batches:
            told(done, total, f"numpy{', emulated' if emulate else ''}, flash attention {'on' if flash else 'off'}")
            ours.append(model.evaluate(batch.ids.tolist()))
            done += len(batch)
        found = agreement(theirs[flash], np.concatenate(ours))
        bound = limit if emulate or not _is_quantised(model) else None
        rows.append(LogitsRow(flash_attn=flash, emulate=emulate, found=found, limit=bound))
    if _is_quantised(first) and any(device_limit(device) > EXACT_NMSE for device in devices):
        rows = nearest_judged(rows, limit)
    return LogitsReport(
        model=os.fspath(path), n_prompt=n_prompt, n_decode=n_decode, seed=seed, noise=noise, rows=tuple(rows),
        devices=devices, llama_build=installed_build(),
    )  # fmt: skip


def device_limit(name: str) -> float:
    """The NMSE that the arithmetic of a device's backend may make."""
    return next((nmse for start, nmse in DEVICE_NMSE.items() if name.startswith(start)), EXACT_NMSE)


def nearest_judged(rows: Sequence[LogitsRow], limit: float) -> list[LogitsRow]:
    """The rows with the limit for the nearer arithmetic alone, which is one for the device, whatever the attention.

    Whether a device rounds activations to blocks, as ggml's CPU code does, depends on what it can do: Vulkan does where
    it multiplies integers. Source: llama.cpp 0c1e570 ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_vk_mul_mat_q_f16
    (quantize_y, integer_dot_product).
    """
    emulates = min((True, False), key=lambda emulate: sum(r.found.nmse for r in rows if r.emulate is emulate))
    return [replace(r, limit=limit if r.emulate is emulates else None) for r in rows]


def _is_quantised(model: Model) -> bool:
    types = {tensor.ggml_type for tensor in model.gguf.tensors}
    return any(isinstance(t, GGMLType) and SIZES[t].block_size > 1 for t in types)
