"""On which devices is a model going to run, if the user does not say? On this machine's, as llama-server would."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ggufphys.builds import LATEST
from ggufphys.flags.idle import idle_notes
from ggufphys.flags.others import other_flags_notes
from ggufphys.flags.run import params_from
from ggufphys.frozen import replace
from ggufphys.gguf import GGUFFile, TensorInfo
from ggufphys.graph.devices.backends import backend_of
from ggufphys.graph.devices.placement import Lack, left_weights
from ggufphys.limits import DISCRETE
from ggufphys.machine.devices import FoundDevice, find_devices
from ggufphys.machine.host import cpu_features
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import Device, Params
from ggufphys.units import format_bytes


def params_here(args: argparse.Namespace) -> tuple[Params, tuple[str, ...]]:
    """The parameters that flags ask for, with the GPUs of this machine unless flags name devices; and notes on
    both. Without the flag the llama.cpp is the newest that was recorded.

    Raises:
        ValueError: a value that llama.cpp would refuse.
    """
    found: list[FoundDevice] = []
    on = getattr(args, "on", None)

    def look() -> tuple[Device, ...]:
        found[:] = find_devices() if on is None else _devices_of(on)
        return tuple(f.device for f in found)

    params = params_from(args, Params(llama_build=LATEST), found=look)
    if params.devices:
        from ggufphys.machine.vulkan import with_limits  # which a model on the host has no use for

        params = replace(params, devices=with_limits(params.devices))
    return params, (
        *_limits_notes(params.devices),
        *other_flags_notes(args),
        *idle_notes(args, params),
        *(_note(f, here=on is None) for f in found if f.device in params.devices),
        *(_elsewhere(params.devices) if on is None else ()),
    )


def over_notes(params: Params, prediction: MemoryPrediction) -> tuple[str, ...]:
    """Says which devices have less memory free than is needed there."""
    free = {device.name: device.memory_bytes for device in params.devices}
    return tuple(
        f"{device.name} has {format_bytes(free[device.name])} free and needs {format_bytes(device.total_bytes)}: it "
        "does not fit; `ggufphys fit` says how it would"
        for device in prediction.devices
        if 0 < free.get(device.name, 0) < device.total_bytes
    )


_LACKS: Final[Mapping[Lack, str]] = {
    "type": "are {types}, with which {device} cannot multiply",
    "operation": "({names}) are for an operation that {device} lacks",
    "size": "({names}) are too large for {device}, whose operations take tensors of {limit} at most (with a trial's "
    "512 tokens)",
}


def left_notes(gguf: GGUFFile, params: Params) -> tuple[str, ...]:
    """Says which weights stay in main memory although their layers go to a device, and why: what places them says."""
    if not params.devices or not params.n_gpu_layers:
        return ()
    left: dict[tuple[str, Lack], list[TensorInfo]] = {}
    for name, lack, tensor in left_weights(gguf, params, cpu_features()):
        left.setdefault((name, lack), []).append(tensor)
    backends = {device.name: backend_of(device) for device in params.devices}
    return tuple(
        f"{format_bytes(sum(tensor.nbytes or 0 for tensor in tensors))} of weights "
        + _LACKS[lack].format(
            device=name,
            types=", ".join(sorted({tensor.type_name for tensor in tensors})),
            names=_named([tensor.name for tensor in tensors]),
            limit=format_bytes(backends[name].max_tensor_bytes),
        )
        + ": these stay in main memory, and the host computes with them"
        for (name, lack), tensors in left.items()
    )


def _named(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _devices_of(name: str) -> list[FoundDevice]:
    """The GPU of a machine by its data sheet, all of its memory free."""
    from ggufphys.speed.published import published_machine  # only where another machine is asked about

    machine = published_machine(name)
    if not machine.has_gpu:
        return []
    device = Device(name=machine.device, memory_bytes=machine.device_bytes)
    return [FoundDevice(device=device, description=machine.description)]


def _limits_notes(devices: Sequence[Device]) -> Iterator[str]:
    """Says whose limits are assumed of devices on which limits count."""
    for device in devices:
        limits = device.limits
        if limits is None:
            continue
        whose = "a discrete GPU's" if replace(limits, graph_optimize=True) == DISCRETE else "those of this machine's"
        yield (
            f"limits of {device.name} are {whose}: tensors of {limits.storage_buffer_range_bytes:,} bytes at most, "
            f"buffers of {min(limits.block_bytes, limits.allocation_bytes):,}, "
            f"alignment {limits.storage_buffer_alignment_bytes}"
        )


def _elsewhere(devices: Sequence[Device]) -> tuple[str, ...]:
    """Says which devices are planned for that this machine does not have, as far as it can be asked."""
    planned = [d.name for d in devices if not d.endpoint]
    if not planned:
        return ()
    here = {found.device.name for found in find_devices()}
    absent = ", ".join(name for name in planned if name not in here)
    there = f"; found here: {', '.join(sorted(here))}" if here else ", where no GPU was found"
    return (f"planned for {absent}, not seen on this machine{there}",) if absent else ()


def _note(found: FoundDevice, *, here: bool) -> str:
    whose = "this machine's " if here else ""
    return (
        f"{found.device.name} is {whose}{found.description}, {format_bytes(found.device.memory_bytes)} free; "
        "--device none leaves it out"
    )
