"""Vulkan's rules against llama.cpp's own account: of every small model, recorded, and live on lavapipe where it is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys.gguf import open_gguf
from ggufphys.limits import DeviceLimits
from ggufphys.machine import vulkan_driver
from ggufphys.memory.predict import Predictor
from ggufphys.params import Device, Params
from scripts import build_vulkan
from tests import archs, oracle, vulkan
from tests.device_rows import asked, differences, predicted, row_of

ROOT = Path(__file__).parents[4]
LIVE = ("llama", "gemma3", "qwen3moe", "deepseek2", "mamba", "mistral4", "qwen3next", "t5")


@pytest.mark.parametrize("thirds", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("configuration", vulkan.GRID)
def test_records(tmp_path: Path, configuration: str, thirds: int) -> None:
    """Model, context and compute bytes of host and devices are llama.cpp's, for a small model of every architecture:
    quickly of a third of them, another one in each configuration.
    """
    first = list(vulkan.GRID).index(configuration) % 3
    records = list(vulkan.records().items())
    found = [
        line
        for name, rows in (records if thirds == 3 else records[first::3])
        for line in differences(name, tmp_path, vulkan.GRID, {configuration: rows[configuration]})
    ]

    assert found == []


def test_records_are_of_every_model() -> None:
    """No small model is left out, and nearly all of them give bytes."""
    rows = [row for rows in vulkan.records().values() for row in rows.values()]

    assert vulkan.records().keys() == archs.records().keys()
    assert sum(isinstance(row, tuple) for row in rows) > 0.97 * len(rows)


def small(**limits: int | bool | tuple[str, ...]) -> Params:
    """All layers on one device with these limits."""
    device = Device(name="Vulkan0", limits=replace(vulkan.LIMITS, **limits))  # type: ignore[arg-type]
    return replace(vulkan.GRID["all"], devices=(device,))


def compute_bytes(tmp_path: Path, params: Params) -> dict[str, int]:
    """By device, of the small llama."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header("llama"))
    with open_gguf(path) as gguf:
        return {d.name: d.compute_bytes for d in Predictor(gguf).predict(params).devices}


def test_the_order_counts(tmp_path: Path) -> None:
    """With GGML_VK_DISABLE_GRAPH_OPTIMIZE nodes run as they come, which takes other room on the device alone."""
    usual = compute_bytes(tmp_path, small())
    off = compute_bytes(tmp_path, small(graph_optimize=False))

    assert off["Vulkan0"] != usual["Vulkan0"]
    assert off["Host"] == usual["Host"]


def test_host_buffers_have_more_bytes(tmp_path: Path) -> None:
    """32 bytes more than are asked for where a buffer is really allocated, on the host alone."""
    simulated, real = (compute_bytes(tmp_path, replace(small(), no_alloc=no_alloc)) for no_alloc in (True, False))

    assert real["Host"] - simulated["Host"] == 32
    assert real["Vulkan0"] == simulated["Vulkan0"]


def test_tensors_above_the_limit_stay_on_the_host(tmp_path: Path) -> None:
    """Logits beyond the storage buffer's range are computed on the host, their matrix with them."""
    usual, narrow = small(), small(storage_buffer_range_bytes=500_000)
    here, there = compute_bytes(tmp_path, usual), compute_bytes(tmp_path, replace(narrow, n_ctx=256, n_ubatch=256))

    assert there["Host"] > here["Host"] / 16
    with pytest.raises(ValueError, match="Vulkan0 cannot run SET_ROWS on a cache of .* bytes, which lies there"):
        compute_bytes(tmp_path, small(storage_buffer_range_bytes=100_000))


def test_a_device_without_shuffles_has_no_flash_attention(tmp_path: Path) -> None:
    """llama.cpp turns flash attention off then, as if asked to, but for how V is stored."""
    path = tmp_path / "model.gguf"
    path.write_bytes(archs.header("llama"))
    with open_gguf(path) as gguf:
        context = Predictor(gguf).context(small(subgroup_operations=("basic", "vote")))

    assert not context.flash_attn
    assert not context.v_trans


@pytest.fixture(scope="module")
def library() -> Path:
    """ggml-vulkan, built once for this checkout."""
    if lacking := build_vulkan.missing_tools():
        pytest.skip(f"to build ggml-vulkan: {', '.join(lacking)}")
    if not any(device.limits.kind == "cpu" for device in vulkan_driver.all_devices()):
        pytest.skip("no lavapipe (mesa-vulkan-drivers)")
    return build_vulkan.build(ROOT / "build" / "vulkan")


@pytest.mark.slow
@pytest.mark.parametrize("name", LIVE)
def test_live(tmp_path: Path, library: Path, name: str) -> None:
    """What lavapipe accounts as a discrete GPU is what was recorded of it."""
    path = tmp_path / "live.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    for configuration, params in vulkan.GRID.items():
        rows = asked(path, {configuration: params}, vulkan.environment(library, as_discrete=True))
        assert list(rows) == [vulkan.records()[name][configuration]]


@pytest.mark.slow
@pytest.mark.parametrize("name", LIVE[:4])
def test_live_with_its_own_limits(tmp_path: Path, library: Path, name: str) -> None:
    """Really allocated, under the driver's own limits, and then in chunks of half a MiB and without another order."""
    path = tmp_path / "live.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    (driver,) = (device.limits for device in vulkan_driver.all_devices() if device.limits.kind == "cpu")
    for block_bytes in (1 << 30, 1 << 19):
        limits: DeviceLimits = replace(driver, block_bytes=block_bytes, graph_optimize=block_bytes > 1 << 20)
        device = Device(name="Vulkan0", memory_bytes=1 << 31, limits=limits)
        environment = {
            **vulkan.environment(library, as_discrete=False),
            "GGML_VK_SUBALLOCATION_BLOCK_SIZE": str(block_bytes),
            **({} if limits.graph_optimize else {"GGML_VK_DISABLE_GRAPH_OPTIMIZE": "1"}),
        }
        for n_gpu_layers in (-1, 2):
            params = replace(_REAL, devices=(device,), n_gpu_layers=n_gpu_layers)
            (answer,) = oracle.ask(path, [params], no_alloc=False, environment=environment)
            with open_gguf(path) as gguf:
                assert predicted(Predictor(gguf), params) == row_of(answer, params), json.dumps(answer)


_REAL = Params(n_ctx=2048, use_extra_bufts=False, use_mmap=False)
