"""On which devices is a model going to run, if the user does not say? On this machine's, as llama-server would."""

import argparse
from functools import cache

from ggufphys.flags import given, params_from
from ggufphys.host_devices import FoundDevice, find_devices
from ggufphys.params import Device, Params
from ggufphys.units import format_bytes


def params_here(args: argparse.Namespace) -> tuple[Params, tuple[str, ...]]:
    """The parameters that flags ask for, with the GPUs of this machine unless flags name devices; and notes on them.

    Raises:
        ValueError: a value that llama.cpp would refuse.
    """
    if "devices" in given(args, _devices):
        return params_from(args, found=_devices), ()
    params = params_from(args, Params(devices=_devices()))
    return params, tuple(_note(found) for found in _found())


@cache
def _found() -> tuple[FoundDevice, ...]:
    return find_devices()


def _devices() -> tuple[Device, ...]:
    return tuple(found.device for found in _found())


def _note(found: FoundDevice) -> str:
    return (
        f"{found.device.name} is this machine's {found.description}, {format_bytes(found.device.memory_bytes)} free; "
        "--device none leaves it out"
    )
