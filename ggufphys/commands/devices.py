"""On which devices is a model going to run, if the user does not say? On this machine's, as llama-server would."""

import argparse
from collections.abc import Iterator, Sequence

from ggufphys.builds import LATEST
from ggufphys.flags.idle import idle_notes
from ggufphys.flags.others import other_flags_notes
from ggufphys.flags.run import params_from
from ggufphys.frozen import replace
from ggufphys.gguf import GGUFFile
from ggufphys.graph.devices.backends import backend_of
from ggufphys.limits import DISCRETE
from ggufphys.machine.devices import FoundDevice, find_devices
from ggufphys.machine.vulkan import with_limits
from ggufphys.memory.predict import MemoryPrediction
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


def left_notes(gguf: GGUFFile, params: Params) -> tuple[str, ...]:
    """Says which weights stay in main memory wherever their layers go: those of types that a device cannot multiply."""
    notes = []
    for device in params.devices if params.n_gpu_layers else ():
        without = backend_of(device).without
        left = [tensor for tensor in gguf.tensors if tensor.ggml_type in without] if without else []
        if left:
            names = ", ".join(sorted({tensor.type_name for tensor in left}))
            nbytes = sum(tensor.nbytes or 0 for tensor in left)
            notes.append(
                f"{format_bytes(nbytes)} of weights are {names}, with which {device.name} cannot multiply: these stay "
                "in main memory, wherever their layers go, and the host computes with them"
            )
    return tuple(notes)


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
