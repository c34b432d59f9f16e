"""On which devices is a model going to run, if the user does not say? On this machine's, as llama-server would."""

import argparse
from collections.abc import Iterator, Sequence

from ggufphys.builds import LATEST
from ggufphys.flags.others import other_flags_notes
from ggufphys.flags.run import params_from
from ggufphys.frozen import replace
from ggufphys.limits import DISCRETE
from ggufphys.machine.devices import FoundDevice, find_devices
from ggufphys.machine.vulkan import with_limits
from ggufphys.params import Device, Params
from ggufphys.units import format_bytes


def params_here(args: argparse.Namespace) -> tuple[Params, tuple[str, ...]]:
    """The parameters that flags ask for, with the GPUs of this machine unless flags name devices; and notes on
    both. Without the flag the llama.cpp is the newest that was recorded.

    Raises:
        ValueError: a value that llama.cpp would refuse.
    """
    found: list[FoundDevice] = []

    def look() -> tuple[Device, ...]:
        found[:] = find_devices()
        return tuple(f.device for f in found)

    params = params_from(args, Params(llama_build=LATEST), found=look)
    params = replace(params, devices=with_limits(params.devices))
    return params, (
        *_limits_notes(params.devices),
        *other_flags_notes(args),
        *(_note(f) for f in found if f.device in params.devices),
        *_elsewhere(params.devices),
    )


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


def _note(found: FoundDevice) -> str:
    return (
        f"{found.device.name} is this machine's {found.description}, {format_bytes(found.device.memory_bytes)} free; "
        "--device none leaves it out"
    )
