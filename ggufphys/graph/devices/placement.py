"""Which device does each layer, the output and each tensor go to, and into which of its buffers?

Layers are counted from the output down: the last `n_gpu_layers` of `n_layer_all + 1` (the output is one) are offloaded
and divided among the devices by proportion. The input stays on the host. A tensor follows its layer, unless a pattern
overrides it or its device cannot multiply its type.

Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model_base::load_tensors, make_cpu_buft_list, make_gpu_buft_list;
src/llama-model-loader.cpp, llama_model_loader::create_tensor; src/llama.cpp, llama_prepare_model_devices.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ggufphys.arch.loaded import is_read_lazily, loaded_tensors
from ggufphys.arch.roles import Role, embedding_is_output, held_twice, role_of, rope_layers
from ggufphys.builds.moves import rules_of
from ggufphys.errors import UnsupportedError
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.graph.devices.backends import Backend, backend_of
from ggufphys.graph.devices.backends.backend import everything
from ggufphys.graph.devices.backends.repack import is_repacked
from ggufphys.graph.devices.placed import AMX, REPACKED, TOKEN_EMBD, Buffer, Placement
from ggufphys.graph.floats import f32
from ggufphys.params import CPU_BUFFER, HOST, Device, Params

if TYPE_CHECKING:
    from ggufphys.graph.devices.trials import Trials

Lack = Literal["type", "operation", "size"]
"""What a device lacks for a weight: it does not multiply the type, has not the operation, or not for so many bytes."""

# common/common.h, LLM_FFN_EXPS_REGEX behind llm_ffn_block_regex
EXPERTS: Final = r"blk\.(\d+)\.ffn_(?:up|down|gate|gate_up)_(?:ch|)exps"


def place_layers(params: Params, n_layer_all: int) -> Placement:
    """Divide the layers of a model among its devices.

    Raises:
        ValueError: llama.cpp would refuse the split mode; or a device's memory decides and is not known.
        UnsupportedError: split_mode tensor, or row on a backend that can split rows.
    """
    devices = used_devices(params)
    _check_split_mode(params, devices)
    n_gpu_layers = params.n_gpu_layers if params.n_gpu_layers >= 0 else n_layer_all + 1
    first = max(n_layer_all + 1 - n_gpu_layers, 0)
    offloaded = min(n_gpu_layers, n_layer_all + 1)
    bounds = _split_points(params, devices) if devices and offloaded else ()
    homes = tuple(
        devices[bisect_right(bounds, f32((il - first) / offloaded))].name if bounds and il >= first else HOST
        for il in range(n_layer_all + 1)
    )
    return Placement(devices=devices, layers=homes[:-1], output=homes[-1], offload_kqv=params.offload_kqv)


def divides_unknown_memory(params: Params, devices: tuple[Device, ...]) -> bool:
    """Would llama.cpp divide layers by memory that nobody has told? Equal shares are assumed then."""
    return len(devices) > 1 and not any(params.tensor_split[: len(devices)]) and not devices[0].memory_bytes


def used_devices(params: Params) -> tuple[Device, ...]:
    """The devices that a model may use: all, or `main_gpu` alone with split_mode none (none when it is negative)."""
    if params.split_mode != "none":
        return params.devices
    return params.devices[params.main_gpu : params.main_gpu + 1] if params.main_gpu >= 0 else ()


Row: TypeAlias = tuple[TensorInfo, str, Role | int, int]
"""A tensor that is loaded, its name in its layer, its role, and a number that those have which are alike."""


def loaded_rows(gguf: GGUFFile, params: Params) -> Sequence[Row]:
    """What is loaded, wherever layers lie."""
    numbers: dict[tuple[str, int, tuple[int, ...]], int] = {}
    return [
        (
            tensor,
            name,
            il if il is not None and name else role_of(gguf.architecture, tensor.name),
            numbers.setdefault((name, int(tensor.ggml_type), tensor.ne), len(numbers)),
        )
        for tensor, (il, name) in loaded_tensors(gguf, load_mtp=params.load_mtp, rules=rules_of(params.llama_build))
    ]


def place_weights(
    gguf: GGUFFile,
    params: Params,
    placement: Placement,
    cpu_features: frozenset[str],
    rows: Sequence[Row] | None = None,
) -> Mapping[Buffer, list[TensorInfo]]:
    """The tensors of each buffer, host first. What several buffers hold stands in each, what none loads in none.

    Copied are a token embedding that is the output matrix too, where the two uses want different buffers (some loaders
    copy it into the same one), and rotary factors, to every device that has a layer.
    """
    chooser = _Chooser(params, placement, cpu_features, gguf)
    uses = _Uses(gguf, placement)
    buffers: dict[Buffer, list[TensorInfo]] = {}
    arch = gguf.architecture

    def targets(tensor: TensorInfo, name: str) -> list[list[TensorInfo]]:
        if is_read_lazily(arch, tensor):
            wanted = [_LAZY]
        else:
            wanted = [chooser.buffer(tensor, name, home, as_output) for home, as_output in uses.of(tensor)]
        each = wanted if tensor.name == uses.twice else dict.fromkeys(wanted)
        return [buffers.setdefault(buffer, []) for buffer in each]

    # Weights that are alike and have one home all go the same way.
    known: dict[tuple[int, str, str], list[list[TensorInfo]]] = {}
    for tensor, name, role, alike in rows or loaded_rows(gguf, params):
        home = uses.home(role)
        if home is None:
            found = targets(tensor, name)
        else:
            kind = alike, home, chooser.override(tensor.name) if chooser.asks_names else ""
            if kind not in known:
                known[kind] = targets(tensor, name)
            found = known[kind]
        for target in found:
            target.append(tensor)
    order = {HOST: -1, **{device.name: i for i, device in enumerate(params.devices)}}
    return dict(sorted(buffers.items(), key=lambda item: (order[item[0].device], not item[0].mapped)))


def left_weights(
    gguf: GGUFFile, params: Params, cpu_features: frozenset[str]
) -> Iterator[tuple[str, Lack, TensorInfo]]:
    """The weights that stay in main memory although their layer is on a device: which device, and what it lacks."""
    placement = place_layers(params, gguf.get_int(f"{gguf.architecture}.block_count", 0))
    chooser, uses, arch = _Chooser(params, placement, cpu_features, gguf), _Uses(gguf, placement), gguf.architecture
    for tensor, _ in loaded_tensors(gguf, load_mtp=params.load_mtp, rules=rules_of(params.llama_build)):
        if is_read_lazily(arch, tensor) or (chooser.asks_names and chooser.override(tensor.name)):
            continue
        for home, as_output in uses.of(tensor):
            lack = None if home == HOST else chooser.lack(chooser.backends[home], tensor, as_output)
            if lack is not None:
                yield home, lack, tensor


_LAZY: Final = Buffer(HOST, "CPU_Mapped", mapped=True, lazy=True)


class _Uses:
    """Where are a tensor's users? For each use: the device, and whether the embedding is meant as the output matrix."""

    def __init__(self, gguf: GGUFFile, placement: Placement) -> None:
        self.arch = gguf.architecture
        self.placement = placement
        self.tied = embedding_is_output(gguf)
        self.twice = held_twice(gguf)
        self.rope_homes = {placement.layers[il] for il in rope_layers(gguf)}
        self.one_home = HOST if {*placement.layers, placement.output} == {HOST} else None

    def home(self, role: Role | int) -> str | None:
        """The one device of all users, where that is all there is to know: of a layer's weights."""
        if self.one_home is not None:
            return self.one_home
        layers = self.placement.layers
        return (layers[role] if role < len(layers) else HOST) if isinstance(role, int) else None

    def of(self, tensor: TensorInfo) -> Iterable[tuple[str, bool]]:
        if self.one_home and tensor.name not in (
            TOKEN_EMBD,
            self.twice,
        ):  # most runs: no need to ask what the tensor is for
            return ((self.one_home, False),)
        return self._by_role(tensor)

    def _by_role(self, tensor: TensorInfo) -> Iterator[tuple[str, bool]]:
        layers, output = self.placement.layers, self.placement.output
        match role_of(self.arch, tensor.name):
            case Role.INPUT:
                yield HOST, False
                if self.tied and tensor.name == TOKEN_EMBD:
                    yield output, True
            case Role.OUTPUT:
                yield output, False
                if tensor.name == self.twice:
                    yield output, False
            case Role.ROPE:
                yield from ((home, False) for home in self.rope_homes)
            case int(il):
                yield (layers[il] if il < len(layers) else HOST), False


class _Chooser:
    """Into which buffer of its device, or else of the host, does a tensor go?"""

    def __init__(self, params: Params, placement: Placement, cpu_features: frozenset[str], gguf: GGUFFile) -> None:
        self.params = params
        self.cpu_features = cpu_features
        self.overrides = _searchers(params)
        self.asks_names = bool(self.overrides or params.n_cpu_moe)
        self.backends = {device.name: backend_of(device) for device in params.devices}
        self.unused = self.backends.keys() - {device.name for device in placement.devices}
        asks = any(backend.supports is not everything for backend in self.backends.values())
        self.trials = _trials(gguf) if asks else None
        pinned = (backend for backend in placement.backends.values() if backend.pinned is not None)
        self.pinned = None if params.no_host else next(pinned, None)
        self.on_host = Buffer(HOST, "CPU_Mapped", True) if params.use_mmap else Buffer(HOST, "CPU")
        self.known: dict[tuple[str, int, tuple[int, ...], str, bool], Buffer] = {}
        self.on_device = {device.name: self._device_buffer(device.name) for device in params.devices}

    def buffer(self, tensor: TensorInfo, name: str, home: str, as_output: bool) -> Buffer:
        """`name` is the tensor's in its layer: weights of other layers that are alike go to the same buffer."""
        if self.asks_names:
            return self._chosen(tensor, home, as_output, self.override(tensor.name))
        key = (name, int(tensor.ggml_type), tensor.ne, home, as_output)
        chosen = self.known.get(key)
        if chosen is None:
            chosen = self.known[key] = self._chosen(tensor, home, as_output, "")
        return chosen

    def _chosen(self, tensor: TensorInfo, home: str, as_output: bool, override: str) -> Buffer:
        if override in self.unused:
            raise ValueError(
                f"override_tensor puts {tensor.name} on {override}, which split_mode none leaves unused "
                f"(main_gpu {self.params.main_gpu}): llama.cpp would end itself"
            )
        if override in self.on_device:
            return self.on_device[override]  # whether it can multiply the type or not
        if override == CPU_BUFFER or home == HOST or self.lack(self.backends[home], tensor, as_output) is not None:
            return self._host_buffer(tensor, as_output)
        return self.on_device[home]

    def lack(self, backend: Backend, tensor: TensorInfo, as_output: bool) -> Lack | None:
        """Why the backend cannot work with this weight; None where it can."""
        if tensor.ggml_type in backend.without:
            return "type"
        if self.trials is None or backend.supports is everything:
            return None
        node = self.trials.node(tensor, as_output=as_output)
        if node is None:
            return None
        return "operation" if not backend.supports(node) else "size" if backend.exceeds(node) else None

    def override(self, name: str) -> str:
        """The buffer that the first matching pattern names; empty without a match."""
        for is_found_in, buffer in self.overrides:
            if is_found_in(name):
                return buffer
        if self.params.n_cpu_moe and "exps" in name:  # else no need to search
            match = re.search(EXPERTS, name)
            if match is not None and int(match[1]) < self.params.n_cpu_moe:
                return CPU_BUFFER
        return ""

    def _host_buffer(self, tensor: TensorInfo, as_output: bool) -> Buffer:
        # Pinned memory stands in front of repacked layouts, and gives way to the mapping when there is one.
        device = self.pinned
        if device is not None and device.pinned is not None and self.lack(device, tensor, as_output) is None:
            return self.on_host if self.params.use_mmap else Buffer(HOST, device.pinned.prefix, backend=device.pinned)
        if self.params.use_extra_bufts:
            if self.params.use_amx:
                from ggufphys.graph.devices.backends.amx import is_amx  # what few builds need

                if is_amx(tensor, as_output=as_output):
                    return AMX
            if is_repacked(tensor, self.cpu_features, as_output=as_output):
                return REPACKED
        return self.on_host

    def _device_buffer(self, name: str) -> Buffer:
        mapped = self.params.use_mmap and self.backends[name].maps_files
        return Buffer(name, f"{name}_Mapped" if mapped else name, mapped, backend=self.backends[name])


def _trials(gguf: GGUFFile) -> "Trials":
    from ggufphys.graph.devices.trials import Trials  # what few backends need

    return Trials(gguf)


def _check_split_mode(params: Params, devices: tuple[Device, ...]) -> None:
    if params.split_mode == "tensor":
        raise UnsupportedError("split_mode tensor, which divides every tensor among the devices, has no rule here yet")
    if params.split_mode != "row":
        return
    for device in devices:
        if not backend_of(device).splits_rows:
            raise ValueError(f"split_mode row: device {device.name} does not support split buffers in this llama.cpp")
        raise UnsupportedError(f"split_mode row on {device.name} has no rule here yet")


def _split_points(params: Params, devices: tuple[Device, ...]) -> tuple[float, ...]:
    """Upper ends of the devices' shares of 1, in 32-bit floats like llama.cpp's, so that ties fall alike."""
    shares = [f32(share) for share in params.tensor_split[: len(devices)]]
    shares += [0.0] * (len(devices) - len(shares))
    if not any(shares):
        unknown = [device.name for device in devices if not device.memory_bytes]
        if 0 < len(unknown) < len(devices):
            raise ValueError(
                f"how much memory {', '.join(unknown)} has decides how layers are divided: say it (--device "
                f"{unknown[0]}=24GiB), or divide them yourself with tensor_split"
            )
        shares = [f32(device.memory_bytes or 1) for device in devices]
    sums = list(accumulate(shares, lambda a, b: f32(a + b)))
    return tuple(f32(end / sums[-1]) for end in sums)


def _searchers(params: Params) -> list[tuple[Callable[[str], bool], str]]:
    """What --override-tensor looks for in names, and the buffer for each."""
    if not params.override_tensor:
        return []
    from ggufphys.patterns.ecmascript import searcher  # what few runs need

    return [(searcher(pattern), buffer) for pattern, buffer in params.override_tensor]
