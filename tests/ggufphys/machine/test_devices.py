"""Devices found on a machine: the driver's answer under llama.cpp's names. No GPU is needed, nor may one disturb."""

import ctypes
import platform
import sys
from pathlib import Path

import pytest

from ggufphys.machine import devices as host_devices
from ggufphys.machine import host, nvml
from ggufphys.machine.nvml import Card

CARDS = [
    Card(uuid="GPU-aa11", name="NVIDIA A", free_bytes=24 << 30),
    Card(uuid="GPU-bb22", name="NVIDIA B", free_bytes=8 << 30),
    Card(uuid="GPU-bb33", name="NVIDIA B", free_bytes=7 << 30),
]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [24, 8, 7]),
        ("", []),
        ("2,0", [7, 24]),
        ("GPU-bb22,0", [8, 24]),
        ("GPU-bb", []),  # two begin so
        ("1,9,0", [8]),  # CUDA stops at the first that is none
        ("0,0", [24]),
        ("-1", []),
    ],
)
def test_visible_devices(monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[int]) -> None:
    """CUDA_VISIBLE_DEVICES chooses and numbers, by number or UUID."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(nvml, "cards", lambda: CARDS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = host_devices.find_devices()

    assert [f.device.memory_bytes >> 30 for f in found] == expected
    assert [f.device.name for f in found] == [f"CUDA{i}" for i in range(len(expected))]


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a driver there is no device, and no error."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(host_devices, "_DRIVER_SIGNS", (str(tmp_path / "none"),))
    assert host_devices.find_devices() == ()

    monkeypatch.setattr(host_devices, "_DRIVER_SIGNS", (str(tmp_path),))
    monkeypatch.setattr(nvml, "_NAMES", {"linux": ("libno-such-nvml.so",)})
    assert host_devices.find_devices() == ()


def test_driver_that_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A driver that answers with an error, or lacks a function, is as good as none."""

    class Driver:
        def nvmlInit_v2(self) -> int:
            return 9

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(host_devices, "_DRIVER_SIGNS", (str(tmp_path),))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert host_devices.find_devices() == ()

    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert host_devices.find_devices() == ()


def test_apple(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Apple chip's GPU may use what macOS lets it wire down: the limit that is set, or two thirds."""
    values = {"hw.memsize": 48 << 30, "iogpu.wired_limit_mb": 0}
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(host, "sysctl_number", lambda name: values[name])
    monkeypatch.setattr(host, "sysctl_text", lambda name: "Apple M9")
    (usual,) = host_devices.find_devices()
    values["iogpu.wired_limit_mb"] = 40 << 10
    (raised,) = host_devices.find_devices()

    assert (usual.device.name, usual.description) == ("MTL0", "Apple M9")
    assert (usual.device.memory_bytes >> 30, raised.device.memory_bytes >> 30) == (32, 40)


def test_main_memory() -> None:
    """The machine's memory is known, and more than what is free of it."""
    memory = host.main_memory()

    assert memory.total_bytes >= memory.available_bytes > 0
