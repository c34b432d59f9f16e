"""Which Vulkan devices llama.cpp would use, and what their limits become."""

from dataclasses import replace

import pytest

from ggufphys.limits import DISCRETE, DeviceKind, DeviceLimits
from ggufphys.machine import vulkan
from ggufphys.machine.vulkan_driver import VulkanDevice
from ggufphys.params import Device

AMD, RADV, PROPRIETARY = 0x1002, 3, 1


def device(name: str, kind: DeviceKind, uuid: bytes, driver: int = RADV) -> VulkanDevice:
    """One with 8 GiB."""
    return VulkanDevice(
        name=name, memory_bytes=8 << 30, limits=DeviceLimits(kind=kind), uuid=uuid, vendor=AMD, driver=driver
    )


FOUND = (
    device("processor", "cpu", b"0"),
    device("card, other driver", "discrete", b"1", PROPRIETARY),
    device("chip", "integrated", b"2"),
    device("card", "discrete", b"1"),
)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, ["chip", "card"]),
        ("0", ["processor"]),
        ("3,0,0", ["card", "processor", "processor"]),
        ("", []),
        ("2,9", ["chip"]),
    ],
)
def test_chosen(variable: str | None, expected: list[str]) -> None:
    """Real GPUs, each by its preferred driver; or those that GGML_VK_VISIBLE_DEVICES lists, the processor too."""
    assert [d.name for d in vulkan.chosen(FOUND, variable)] == expected


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is here has its own limits, another a discrete GPU's; llama.cpp's variables count for both."""
    own = replace(FOUND[2].limits, storage_buffer_range_bytes=1 << 27)
    monkeypatch.setattr(vulkan, "vulkan_devices", lambda: (replace(FOUND[2], limits=own),))
    for variable in (*vulkan._VARIABLES, vulkan.OPTIMIZE_OFF):
        monkeypatch.delenv(variable, raising=False)
    asked = (Device(name="Vulkan0"), Device(name="Vulkan1", memory_bytes=1 << 30), Device(name="CUDA0"))
    here, elsewhere, other = vulkan.with_limits(asked)

    assert (here.limits, here.memory_bytes) == (own, 8 << 30)
    assert (elsewhere.limits, elsewhere.memory_bytes) == (DISCRETE, 1 << 30)
    assert other.limits is None

    monkeypatch.setenv("GGML_VK_SUBALLOCATION_BLOCK_SIZE", "4096")
    monkeypatch.setenv("GGML_VK_DISABLE_GRAPH_OPTIMIZE", "0")  # whatever it is set to
    assert vulkan.with_limits(asked)[1].limits == replace(DISCRETE, block_bytes=4096, graph_optimize=False)

    monkeypatch.setenv("GGML_VK_FORCE_MAX_BUFFER_SIZE", "much")
    with pytest.raises(ValueError, match="GGML_VK_FORCE_MAX_BUFFER_SIZE is 'much', expected a number of bytes"):
        vulkan.with_limits(asked)
