"""Which flags make llama-server run a model like this? The inverse of `ggufphys.flags.run`, for pasting.

Only what is chosen or differs from llama.cpp's defaults is written.
"""

from collections.abc import Iterator

from ggufphys.context import cache_type
from ggufphys.frozen import fields
from ggufphys.params import Params

_PLAIN = {f.name: f.default for f in fields(Params)}


def run_flags(params: Params, *, name_devices: bool) -> list[str]:
    """The flags, in no need of quoting for a process; `name_devices` says which devices are meant."""
    return [word for words in _flags(params, name_devices) for word in words]


def _flags(p: Params, name_devices: bool) -> Iterator[tuple[str, ...]]:
    yield "-c", str(p.n_ctx)
    if p.run_as == "server" or p.n_seq_max > 1:
        yield "-np", str(p.n_seq_max)
    if p.n_seq_max > 1 and p.kv_unified:  # not by itself once -np is given
        yield ("-kvu",)
    if p.n_batch != _PLAIN["n_batch"]:
        yield "-b", str(p.n_batch)
    yield "-ub", str(p.n_ubatch)
    yield "-ctk", p.type_k
    yield "-ctv", p.type_v
    quantised = cache_type(p.type_v).name.startswith(("Q", "IQ"))
    if p.flash_attn != "auto" or quantised:  # auto may become off where a device can't, and the cache is refused then
        yield "-fa", "on" if p.flash_attn == "auto" else p.flash_attn
    if p.swa_full:
        yield ("--swa-full",)
    if p.load_mode != "mmap":
        yield "-lm", p.load_mode
    if not p.use_extra_bufts:
        yield ("--no-repack",)
    if p.n_threads:
        yield "-t", str(p.n_threads)
    yield from _device_flags(p, name_devices)


def _device_flags(p: Params, name_devices: bool) -> Iterator[tuple[str, ...]]:
    if not p.devices:
        yield "-dev", "none"
        return
    servers = [device.endpoint for device in p.devices if device.endpoint]
    if servers:
        yield "--rpc", ",".join(servers)
    if name_devices:
        numbers = {endpoint: f"RPC{i}" for i, endpoint in enumerate(servers)}  # as --rpc registers them
        yield "-dev", ",".join(numbers.get(device.endpoint, device.name) for device in p.devices)
    yield "-ngl", str(p.n_gpu_layers)
    if p.n_cpu_moe:
        yield "-ncmoe", str(p.n_cpu_moe)
    if any(p.tensor_split):
        yield "-ts", ",".join(f"{share:g}" for share in p.tensor_split)
    if p.split_mode != "layer":
        yield "-sm", p.split_mode
        yield "-mg", str(p.main_gpu)
    if not p.offload_kqv:
        yield ("-nkvo",)
    if p.override_tensor:
        yield "-ot", ",".join(f"{pattern}={buffer}" for pattern, buffer in p.override_tensor)
    if not p.op_offload:
        yield ("--no-op-offload",)
    if p.no_host:
        yield ("--no-host",)


def changed(flags: list[str], others: list[str]) -> list[str]:
    """What of `others` is not in `flags`: flags with their values."""
    known = set(_pairs(flags))
    return [word for pair in _pairs(others) if pair not in known for word in pair]


def _pairs(flags: list[str]) -> list[tuple[str, ...]]:
    pairs: list[tuple[str, ...]] = []
    for word in flags:
        if word.startswith("-") or not pairs:
            pairs.append((word,))
        else:
            pairs[-1] = (*pairs[-1], word)
    return pairs
