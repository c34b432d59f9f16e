"""How are layers best divided among devices of different size, when each costs something else?

Devices take layers in order, each a stretch of them; the output is the last device's. The best division leaves every
device about as full as the others: it makes the fullest one, relative to its room, as empty as can be.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Final

from ggufphys.arch import LayerCache
from ggufphys.arch.roles import Role, embedding_is_output, role_of
from ggufphys.context import ContextParams
from ggufphys.graph.devices.backends import CPU, Backend, backend_of
from ggufphys.graph.devices.placed import TOKEN_EMBD
from ggufphys.graph.devices.placement import EXPERTS
from ggufphys.memory.context import cache_bytes
from ggufphys.memory.predict import Predictor
from ggufphys.params import Params

_HALVINGS: Final = 30  # of the interval that the best fill lies in: to 1e-9 of it


class LayerCosts:
    """Bytes of each layer's weights and cache on the devices, for `divide`: a guide, the last word is `Predictor`'s.

    It leaves out that patterns may put tensors elsewhere than their layer.
    """

    def __init__(self, predictor: Predictor, params: Params) -> None:
        h = predictor.h
        self.caches = predictor.rule_in(params).layers(h, params.ctx_type)
        self.offload_kqv = params.offload_kqv
        self.backend: Backend = backend_of(params.devices[0]) if params.devices else CPU
        self.dense = [0] * h.n_layer_all
        self.experts = [0] * h.n_layer_all
        self.output = 0
        tied = embedding_is_output(predictor.gguf)
        for tensor in predictor.gguf.tensors:
            nbytes = self.backend.tensor_bytes(tensor.nbytes or 0, tensor.ggml_type, tensor.ne[0] if tensor.ne else 1)
            role = role_of(h.arch, tensor.name)
            if isinstance(role, int) and role < h.n_layer_all:
                (self.experts if re.search(EXPERTS, tensor.name) else self.dense)[role] += nbytes
            elif role is Role.OUTPUT or (tensor.name == TOKEN_EMBD and tied):
                self.output += nbytes

    @property
    def expert_layers(self) -> tuple[int, ...]:
        """The layers with experts."""
        return tuple(il for il, nbytes in enumerate(self.experts) if nbytes)

    def items(self, n_gpu_layers: int, n_cpu_moe: int, context: ContextParams) -> list[int]:
        """Bytes of what `n_gpu_layers` offload, in order: layers, then the output."""

        @cache
        def kept(caches: tuple[LayerCache, ...]) -> int:
            return sum(cache_bytes(c, context, self.backend) for c in caches)

        costs = [
            dense + (experts if il >= n_cpu_moe else 0) + (kept(self.caches[il]) if self.offload_kqv else 0)
            for il, (dense, experts) in enumerate(zip(self.dense, self.experts, strict=True))
        ]
        costs.append(self.output)
        return costs[max(0, len(costs) - n_gpu_layers) :]


def divide(items: Sequence[int], rooms: Sequence[int], overheads: Sequence[int]) -> tuple[int, ...]:
    """How many of `items` each device takes: stretches of them in order, all of them, evenly by what is full.

    `rooms` are the devices' bytes, `overheads` what each needs beside the items that it takes, if it takes any.
    """
    sums = [0, *accumulate(items)]
    low, high = 0.0, 1.0
    while (counts := _filled(sums, rooms, overheads, high)) is None and high < 1e9:
        low, high = high, 2 * high
    if counts is None:  # no room anywhere: in equal parts, so that it can be said by how much it fails
        n = len(rooms)
        return tuple(len(items) * (i + 1) // n - len(items) * i // n for i in range(n))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = _filled(sums, rooms, overheads, middle)
        if found is None:
            low = middle
        else:
            high, counts = middle, found
    return counts


def stretches(items: Sequence[int], counts: Iterable[int]) -> list[int]:
    """The sum of each device's items."""
    sums, at = [], 0
    for count in counts:
        sums.append(sum(items[at : at + count]))
        at += count
    return sums


def _filled(sums: Sequence[int], rooms: Sequence[int], overheads: Sequence[int], fill: float) -> tuple[int, ...] | None:
    """The items that each device takes when none may be fuller than `fill`; None if that leaves some.

    `sums` are those of the first 0, 1, ... items.
    """
    counts, at = [], 0
    for room, overhead in zip(rooms, overheads, strict=True):
        start = at
        at = max(start, bisect_right(sums, sums[start] + fill * room - overhead) - 1)
        counts.append(at - start)
    return tuple(counts) if at + 1 == len(sums) else None
