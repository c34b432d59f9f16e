"""How is the model going to be run? The same parameters serve prediction, measurement and the server.

Names and defaults are llama.cpp's. `Params` is what the user asks for, `ggufphys.context` what llama.cpp makes of it.
Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_init_from_model; include/llama.h.
"""

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Final, Literal, Self, get_args

from ggufphys.builds.moves import PINNED, rules_of
from ggufphys.frozen import dataclass, fields, replace
from ggufphys.limits import DeviceLimits
from ggufphys.units import elements, require_kind, truth, whole_number

FlashAttn = Literal["auto", "on", "off"]
SplitMode = Literal["none", "layer", "row", "tensor"]
ContextType = Literal["default", "mtp"]
LoadMode = Literal["none", "mmap", "mlock", "mmap+mlock", "dio"]
RunAs = Literal["library", "server"]
Pooling = Literal["model", "none", "mean", "cls", "last", "rank"]

POOLING_TYPES: Final[tuple[Pooling, ...]] = "none", "mean", "cls", "last", "rank"  # as files number them

N_PARALLEL_AUTO: Final = 4  # llama-server's slots, when nobody says how many; then the cache is unified
MAX_SEQ: Final = 256  # LLAMA_MAX_SEQ
MAX_THREADS: Final = 512  # GGML_MAX_N_THREADS: arrays of that length in ggml-cpu.c
MAX_DEVICES: Final = 16  # llama_max_devices
FLT_MAX: Final = 3.4028234e38  # of a 32-bit float, in which proportions are added up
HOST: Final = "Host"  # our name for main memory, where several of llama.cpp's buffer types lie
CPU_BUFFER: Final = "CPU"  # llama.cpp's name for it in --override-tensor

# ggml's types, in small letters. llama.cpp 0c1e570 common/arg.cpp, kv_cache_types
CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

# llama.cpp 0c1e570 src/llama-model-loader.cpp, llama_model_loader ctor: what each load mode means.
LOAD_MODES: Final[dict[str, dict[str, bool]]] = {
    "none": {"use_mmap": False, "use_mlock": False, "use_direct_io": False},
    "mmap": {"use_mmap": True, "use_mlock": False, "use_direct_io": False},
    "mlock": {"use_mmap": False, "use_mlock": True, "use_direct_io": False},
    "mmap+mlock": {"use_mmap": True, "use_mlock": True, "use_direct_io": False},
    "dio": {"use_mmap": False, "use_mlock": False, "use_direct_io": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that llama.cpp may put layers on, by its name for the device's buffers: CUDA0, MTL0, RPC0[host:port].

    `memory_bytes` is what is free on it, 0 when unknown; layers are divided by it when no tensor_split is given.
    `limits` are what its driver allows, where that counts (Vulkan); None: as a discrete GPU's.
    """

    name: str
    memory_bytes: int = 0
    limits: DeviceLimits | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a device's name is {self.name!r}, expected a text such as 'CUDA0'")
        object.__setattr__(self, "memory_bytes", whole_number(self.memory_bytes, f"{self.name}: memory_bytes"))
        if not self.name or self.name in (HOST, CPU_BUFFER):
            raise ValueError(f"a device is named {self.name!r}, expected llama.cpp's name for it, such as CUDA0")
        if self.memory_bytes < 0:
            raise ValueError(f"device {self.name} has memory_bytes {self.memory_bytes}, expected 0 or more")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict` after a journey through JSON."""
        limits = fields.get("limits")
        return cls(**{**fields, "limits": None if limits is None else DeviceLimits(**limits)})

    @property
    def endpoint(self) -> str:
        """The `host:port` of an RPC server's device; empty for others."""
        match = re.fullmatch(_RPC_NAME, self.name)
        return match[1] if match else ""


_RPC_NAME: Final = r"RPC\d+\[(.+)\]"


def rpc_device(endpoint: str, memory_bytes: int = 0, *, index: int = 0) -> Device:
    """The device `index` of the RPC server at `endpoint`, under llama.cpp's name for its buffers."""
    return Device(name=f"RPC{index}[{endpoint}]", memory_bytes=memory_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What llama.cpp is asked for. `n_ctx=0` means the length the model was trained on, `n_outputs_max=0` n_batch.

    Without `devices` everything lies on the host, whatever n_gpu_layers says. `n_gpu_layers` counts from the output
    layer down; any negative number means all. `override_tensor` holds pairs of a pattern, searched in tensors' names,
    and a buffer: "CPU" or a device's name; the first match decides, before `n_cpu_moe`, the number of layers whose
    experts stay on the CPU.

    Speculative decoding: `n_rs_seq` drafted tokens can be taken back from recurrent states; `load_mtp` loads the layers
    that predict tokens further ahead, and a context of `ctx_type` "mtp" runs them.

    These are the library's defaults; `Params.server` has llama-server's. `run_as` says whose they are, and with
    `fit_params` (--fit) a context that nobody asked for is as long as in training for each stream of the cache.
    `llama_build` is the number of llama.cpp's build, b11739 being 11739 (`ggufphys.builds`).

    With `no_alloc` compute buffers are as in llama.cpp's own simulation, which llama-fit-params prints, not as in a
    run: they differ where several devices are used (`ggufphys.graph.devices.divided`).

    Raises:
        TypeError: a value of the wrong type: "8k", 8192.5.
        ValueError: a value that llama.cpp would refuse.
    """

    n_ctx: int = 0
    n_batch: int = 2048
    n_ubatch: int = 512
    n_seq_max: int = 1
    n_outputs_max: int = 0
    kv_unified: bool = False
    swa_full: bool = False
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: FlashAttn = "auto"
    use_mmap: bool = True
    use_mlock: bool = False  # weights in main memory are locked there
    use_direct_io: bool = False  # read past the page cache; then nothing is mapped, whatever use_mmap says
    use_extra_bufts: bool = True  # repacked weights (CPU_REPACK, AMX); --no-repack turns it off
    use_amx: bool = False  # llama.cpp is built with AMX kernels and the CPU has them: then weights take their layout
    use_blas: bool = False  # llama.cpp has a BLAS backend (OpenBLAS, MKL, Accelerate), which copies weights to F32
    n_threads: int = 0  # 0: one for each physical core
    devices: tuple[Device, ...] = ()
    n_gpu_layers: int = -1
    split_mode: SplitMode = "layer"
    tensor_split: tuple[float, ...] = ()  # proportions in the order of devices; empty or all zero: by memory_bytes
    main_gpu: int = 0
    offload_kqv: bool = True
    op_offload: bool = True  # devices fetch weights of the host for large batches
    override_tensor: tuple[tuple[str, str], ...] = ()
    n_cpu_moe: int = 0
    no_host: bool = False  # no pinned host buffers (CUDA_Host), so that repacked weights are considered again
    n_rs_seq: int = 0
    load_mtp: bool = False
    ctx_type: ContextType = "default"
    no_alloc: bool = False
    run_as: RunAs = "library"
    fit_params: bool = False
    embeddings: bool = False  # what a context is for: rows of hidden states, not logits alone
    pooling: Pooling = "model"  # how embeddings of a sequence become one; "model": as the file says
    llama_build: int = PINNED

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            object.__setattr__(self, name, whole_number(getattr(self, name), name))
        for name in _FLAGS:
            truth(getattr(self, name), name)
        for name, (kinds, example) in _SEQUENCES.items():  # lists are welcome too
            object.__setattr__(self, name, elements(getattr(self, name), name, kinds, example))
        object.__setattr__(self, "override_tensor", tuple((p, b) for p, b in self.override_tensor))
        if self.use_direct_io:
            if self.use_mlock:
                raise ValueError("use_direct_io and use_mlock: llama.cpp has no load mode for both")
            object.__setattr__(self, "use_mmap", False)
        for name in ("type_k", "type_v"):
            if getattr(self, name) not in CACHE_TYPES:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(CACHE_TYPES)}")
        if self.flash_attn not in ("auto", "on", "off"):
            raise ValueError(f"flash_attn is {self.flash_attn!r}, expected auto, on or off")
        if self.ctx_type not in get_args(ContextType):
            raise ValueError(f"ctx_type is {self.ctx_type!r}, expected one of {', '.join(get_args(ContextType))}")
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling is {self.pooling!r}, expected one of {', '.join(get_args(Pooling))}")
        if self.run_as not in get_args(RunAs):
            raise ValueError(f"run_as is {self.run_as!r}, expected library or server")
        for name in ("n_ctx", "n_batch", "n_ubatch", "n_outputs_max", "n_rs_seq", "llama_build"):
            if not 0 <= getattr(self, name) < 1 << 31:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 2^31 - 1")
        if not 0 <= self.n_threads <= MAX_THREADS:
            raise ValueError(f"n_threads is {self.n_threads}, expected at most {MAX_THREADS} (GGML_MAX_N_THREADS)")
        if not 1 <= self.n_seq_max <= MAX_SEQ:
            raise ValueError(f"n_seq_max is {self.n_seq_max}, expected 1 to {MAX_SEQ} (LLAMA_MAX_SEQ)")
        if self.n_batch == 0 and self.n_ubatch == 0:
            raise ValueError("n_batch and n_ubatch cannot both be zero")
        if 0 < self.n_outputs_max < self.n_seq_max:
            raise ValueError(
                f"n_outputs_max is {self.n_outputs_max}, expected at least n_seq_max = {self.n_seq_max}: "
                "llama.cpp aborts otherwise"
            )
        for complaint in _device_complaints(self):
            raise ValueError(complaint)

    @property
    def n_stream_fitted(self) -> int:
        """For how many streams of the cache a context that nobody asked for is made: one, or with --fit all of them."""
        rules = rules_of(self.llama_build)
        multiplied = self.fit_params and "context_times_streams" in rules
        if self.kv_unified and "context_times_unified_streams" not in rules:
            multiplied = False
        return self.n_seq_max if multiplied else 1

    @property
    def load_mode(self) -> LoadMode:
        """llama.cpp's name for how weights are loaded."""
        if self.use_direct_io:
            return "dio"
        if self.use_mlock:
            return "mmap+mlock" if self.use_mmap else "mlock"
        return "mmap" if self.use_mmap else "none"

    @classmethod
    def server(cls, *, n_draft: int = 0, fit_params: bool = True, **fields: Any) -> "Params":
        """What llama-server makes of `fields`: four slots with one cache unless n_seq_max is given, an output for each.

        `n_draft` is how many drafted tokens are verified at once. Whether there is memory for it all is not asked here:
        `ggufphys.plan.server_fit` shortens a context as --fit does.

        >>> params = Params.server(n_ctx=8192)
        >>> params.n_seq_max, params.kv_unified, params.n_outputs_max
        (4, True, 4)

        Raises:
            ValueError: a value that llama.cpp would refuse.
        """
        params = cls(**fields)
        return as_server(params, n_parallel_given="n_seq_max" in fields, n_draft=n_draft, fit_params=fit_params)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict` after a journey through JSON.

        Raises:
            ValueError: a value that llama.cpp would refuse.
        """
        return cls(**{**fields, "devices": tuple(map(Device.from_json, fields.get("devices", ())))})


_NUMBERS: Final = tuple(f.name for f in fields(Params) if f.type is int)
_FLAGS: Final = tuple(f.name for f in fields(Params) if f.type is bool)
_SEQUENCES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "devices": ((Device,), 'Device(name="CUDA0", memory_bytes=24 << 30)'),
    "tensor_split": ((int, float), "3.0, 1.0"),
    "override_tensor": ((tuple, list), '("exps", "CPU")'),
}


def params_or_default(params: Params | None) -> Params:
    """The parameters that were given, or llama.cpp's defaults.

    Raises:
        TypeError: something else was given.
    """
    if params is None:
        return Params()
    require_kind(params, Params, "params", "Params(n_ctx=8192)")
    return params


def as_server(params: Params, *, n_parallel_given: bool, n_draft: int = 0, fit_params: bool = True) -> Params:
    """The parameters that llama-server makes of those: slots, and outputs for each with `n_draft` tokens to verify.

    Source: llama.cpp 0c1e570 tools/server/server.cpp, llama_server; tools/server/server-context.cpp,
    server_output_limits; common/speculative.cpp, common_speculative_get_output_limits; common/fit.cpp,
    common_params_fit_impl (n_ctx_max).
    """
    if not n_parallel_given:
        params = replace(params, n_seq_max=N_PARALLEL_AUTO, kv_unified=True)
    if params.embeddings and 0 < params.n_ubatch < params.n_batch:
        params = replace(params, n_batch=params.n_ubatch)
    limited = "server_reserves_all_outputs" not in rules_of(params.llama_build)
    if limited and not params.n_outputs_max and params.n_batch < params.n_seq_max:
        raise ValueError(
            f"n_batch is {params.n_batch}, expected at least n_seq_max = {params.n_seq_max}: llama-server reserves as "
            "many outputs as n_batch, and llama.cpp aborts where sequences have none"
        )
    wanted = max(1, min(params.n_batch, params.n_seq_max * (1 + n_draft))) if limited else 0
    if params.embeddings or params.pooling not in ("model", "none"):
        wanted = params.n_batch
    n_outputs_max = params.n_outputs_max or wanted
    return replace(params, n_outputs_max=n_outputs_max, run_as="server", fit_params=fit_params)


def _device_complaints(p: Params) -> Iterator[str]:
    """What llama.cpp would refuse about devices, each as a sentence.

    Source: llama.cpp 0c1e570 common/arg.cpp, parse_tensor_buffer_overrides, --tensor-split; src/llama.cpp,
    llama_prepare_model_devices; src/llama-model.cpp, make_gpu_buft_list.
    """
    names = [device.name for device in p.devices]
    if len(names) > MAX_DEVICES:
        yield f"{len(names)} devices, expected at most {MAX_DEVICES} (llama_max_devices)"
    if len(set(names)) < len(names):
        yield f"devices {', '.join(names)}: each may be named once"
    if p.split_mode not in get_args(SplitMode):
        yield f"split_mode is {p.split_mode!r}, expected one of {', '.join(get_args(SplitMode))}"
    if p.split_mode == "tensor" and not p.devices:
        yield "split_mode tensor needs at least one device"
    if p.split_mode == "none" and p.main_gpu >= len(names) > 0:
        yield f"main_gpu is {p.main_gpu}, expected less than the number of devices, {len(names)}"
    if len(p.tensor_split) > MAX_DEVICES:
        yield f"tensor_split has {len(p.tensor_split)} entries, but llama.cpp knows at most {MAX_DEVICES} devices"
    if not all(isfinite(share) and share >= 0 for share in p.tensor_split):
        yield f"tensor_split is {p.tensor_split}, expected proportions of 0 or more"
    elif sum(p.tensor_split) > FLT_MAX:
        yield f"tensor_split is {p.tensor_split}, expected a sum that a 32-bit float holds"
    if p.n_cpu_moe < 0:
        yield f"n_cpu_moe is {p.n_cpu_moe}, expected 0 or more layers"
    if p.override_tensor:
        yield from _override_complaints(p)


def _override_complaints(p: Params) -> Iterator[str]:
    from ggufphys.patterns.ecmascript import searcher  # what few runs need

    names = [device.name for device in p.devices]
    for pattern, buffer in p.override_tensor:
        if buffer not in (CPU_BUFFER, *names):
            known = ", ".join((CPU_BUFFER, *names))
            yield f"override_tensor {pattern}={buffer}: unknown buffer type {buffer!r}, expected one of {known}"
        try:
            searcher(pattern)
        except ValueError as error:
            yield f"override_tensor: {error}"
