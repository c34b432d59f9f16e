"""Where do layers, the output and weights lie? What `memory.placement` decides, and the division of a graph follows."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, Final

from ggufphys.frozen import dataclass, field, fields, replace
from ggufphys.gguf import TensorInfo
from ggufphys.graph.devices.backends import CPU, Backend, backend_of
from ggufphys.params import HOST, Device, Params

TOKEN_EMBD: Final = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer of weights by llama.cpp's name for it; `mapped` ones are stretches of the file.

    A `lazy` one is mapped whatever the load mode, and read row by row. It follows the rules of `backend`.
    """

    device: str
    name: str
    mapped: bool = False
    lazy: bool = False
    backend: Backend = field(default=CPU, compare=False)


REPACKED: Final = Buffer(HOST, "CPU_REPACK")
AMX: Final = Buffer(HOST, "AMX")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Devices by name, `HOST` for main memory: of each layer, and of the output layer.

    `devices` are those the model may use, in order: fewer than were given with split_mode none.
    """

    devices: tuple[Device, ...]
    layers: tuple[str, ...]
    output: str
    offload_kqv: bool

    def kv(self, il: int) -> str:
        """The device of a layer's cache."""
        return self.layers[il] if self.offload_kqv and il < len(self.layers) else HOST

    @property
    def backends(self) -> Mapping[str, Backend]:
        """The backend of each device, by the device's name."""
        return {device.name: backend_of(device) for device in self.devices}

    @property
    def host(self) -> Backend:
        """The rules of main memory that the host computes in: where there are devices, of what the first one reads.

        Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor, backend_buft.
        """
        return (backend_of(self.devices[0]).pinned if self.devices else None) or CPU

    @property
    def output_host(self) -> Backend:
        """The rules of the memory that logits are handed out in: of what the output's device reads.

        Source: llama.cpp 0c1e570 src/llama-context.cpp, output_reserve.
        """
        backend = self.backends.get(self.output)
        return (backend.pinned if backend is not None else None) or CPU

    @property
    def is_whole(self) -> bool:
        """Is nothing but the input left on the host?"""
        return bool(self.layers) and HOST not in (*self.layers, self.output)


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A model's layers and weights, where they lie when it is run like `params` (`placing`)."""

    params: Params
    placement: Placement
    weights: Mapping[Buffer, Sequence[TensorInfo]]

    @cached_property
    def devices_by_weight(self) -> Mapping[str, Sequence[str]]:
        """The devices that hold each weight, by its name."""
        devices: dict[str, list[str]] = {}
        for buffer, tensors in self.weights.items():
            for tensor in tensors:
                devices.setdefault(tensor.name, []).append(buffer.device)
        return devices

    @cached_property
    def repacked(self) -> frozenset[str]:
        """The names of the weights that the CPU keeps in a layout of its own."""
        return frozenset(tensor.name for buffer in (AMX, REPACKED) for tensor in self.weights.get(buffer, ()))

    @property
    def takers(self) -> Sequence[tuple[str, Backend]]:
        """Devices that may fetch weights of the host, whether any is fetched (`Params.op_offload`) or not."""
        return [(name, backend) for name, backend in self.placement.backends.items() if backend.offloads_from]

    @property
    def uses_devices(self) -> bool:
        """Does anything run elsewhere than on the host? Where weights lie, and where the host's may be fetched.

        With such a device the host follows its rules.
        """
        return any(buffer.device != HOST for buffer in self.weights) or bool(self.takers)

    @property
    def is_pipelined(self) -> bool:
        """Do the devices work on several batches at a time? It takes all layers, several devices, and no overrides.

        Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor, pipeline_parallel.
        """
        params, devices = self.params, self.placement.devices
        return (
            self.placement.is_whole
            and len(devices) > 1
            and params.split_mode == "layer"
            and params.offload_kqv
            and not params.override_tensor
            and not params.n_cpu_moe
            and all(backend.pipelines for backend in self.placement.backends.values())
        )

    @cached_property
    def division(self) -> Hashable:
        """All that decides how a graph is divided: equal where only the load mode differs, say."""
        homes: dict[str, list[Hashable]] = {}
        for buffer, tensors in self.weights.items():
            where = buffer.device, buffer == REPACKED, buffer.backend.max_tensor_bytes
            for tensor in tensors:
                homes.setdefault(tensor.name, []).append(where)
        by_name = frozenset((name, tuple(found)) for name, found in homes.items())
        params = self.params
        return self.placement, params.no_alloc, params.op_offload, params.use_blas, self.is_pipelined, by_name

    @property
    def is_proven(self) -> bool:
        """Do tests compare the backends of all devices with llama.cpp?

        Not with BLAS beside main memory that a device reads itself: then what BLAS computes lies in a buffer of
        its own, which no rule follows. Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor (host_buft);
        ggml/src/ggml-blas/ggml-blas.cpp, ggml_backend_blas_device_get_buffer_type.
        """
        if self.params.use_blas and self.placement.backends and self.placement.host.prefix != CPU.prefix:
            return False
        return all(backend.proven for backend in self.placement.backends.values())


# Parameters of the context, which make no difference to where weights lie, at any one value.
_NOTHING_TO_WEIGHTS: Final[Mapping[str, Any]] = {
    f.name: f.default
    for f in fields(Params)
    if f.name in {
        "n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_outputs_max", "kv_unified", "swa_full", "type_k", "type_v",
        "flash_attn", "n_threads", "n_rs_seq", "ctx_type", "embeddings", "pooling",
    }
}  # fmt: skip


what_places: Final[Callable[[Params], tuple[Any, ...]]] = attrgetter(
    *(f.name for f in fields(Params) if f.name not in _NOTHING_TO_WEIGHTS)
)
"""The same for all parameters with which layers and weights lie in the same places."""


def placing(params: Params) -> Params:
    """One of the parameters for which `what_places` is the same."""
    return replace(params, **_NOTHING_TO_WEIGHTS)
