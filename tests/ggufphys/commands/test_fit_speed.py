"""What `fit` takes for the speed of a machine."""

from argparse import Namespace

import pytest

from ggufphys import Device, Params
from ggufphys.commands.fit_speed import Paces
from ggufphys.params import SplitMode


@pytest.mark.parametrize(("split_mode", "lacking"), [("none", ""), ("layer", "no rates of CUDA1")])
def test_rates_of_devices_that_are_used(split_mode: SplitMode, lacking: str) -> None:
    """A device that nothing is laid on needs no rates."""
    devices = tuple(Device(name=f"CUDA{i}", memory_bytes=8 << 30) for i in range(2))
    found = Paces(
        Namespace(prefer="speed", target=None, on="rtx-3060"),
        Params(devices=devices, split_mode=split_mode, main_gpu=0),
    )

    assert lacking in found.unknown
    assert bool(found.unknown) is bool(lacking)
