"""Vulkan's rules against llama.cpp's own account: of every small model, recorded, and live on lavapipe where it is."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ggufphys.gguf import GGMLType, open_gguf
from ggufphys.graph import ops
from ggufphys.graph.devices.backends.vulkan_ops import supports
from ggufphys.graph.ir import Tensor
from ggufphys.limits import DeviceLimits
from ggufphys.machine import vulkan_driver
from ggufphys.memory.predict import Predictor
from ggufphys.params import Device, FlashAttn, Params
from scripts import build_vulkan
from tests import archs, oracle, vulkan
from tests.device_rows import asked, differences, predicted, row_of

ROOT = Path(__file__).parents[5]
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


@pytest.mark.parametrize("n_gpu_layers", [0, 1])
def test_weights_of_the_host_are_fetched_unless_told(tmp_path: Path, n_gpu_layers: int) -> None:
    """With --no-op-offload large batches run where their weights are; the host's memory is still the device's."""
    fetched = replace(small(), n_gpu_layers=n_gpu_layers, no_alloc=False)
    left = replace(fetched, op_offload=False)
    usual, alone = compute_bytes(tmp_path, fetched), compute_bytes(tmp_path, left)

    assert alone["Vulkan0"] < usual["Vulkan0"]
    assert bool(alone["Vulkan0"]) is bool(n_gpu_layers)
    assert alone["Host"] - compute_bytes(tmp_path, replace(left, no_alloc=True))["Host"] == 32


@pytest.mark.parametrize(
    ("weights", "x", "runs"),
    [
        ("BF16", "F32", True), ("BF16", "BF16", True), ("BF16", "F16", False), ("F16", "BF16", False),
        ("F16", "F32", True), ("Q8_0", "F16", True), ("I8", "F32", False),
    ],
)  # fmt: skip
def test_which_types_are_multiplied(weights: str, x: str, *, runs: bool) -> None:
    """BF16 goes with F32 and with itself; there is no shader that mixes it with F16."""
    node = ops.mul_mat(ops.new_input(GGMLType[weights], 64, 32), ops.new_input(GGMLType[x], 64, 8))

    assert supports(node, vulkan.LIMITS) is runs


def test_copies_and_running_sums() -> None:
    """A copy of newer builds' graphs, and sums along rows, which want whole subgroups."""
    x = ops.new_input(GGMLType.F32, 64, 8)

    assert supports(ops.dup(x), vulkan.LIMITS)
    assert supports(Tensor("CUMSUM", x.type, x.ne, (x,)), vulkan.LIMITS)
    assert not supports(Tensor("CUMSUM", x.type, x.ne, (x,)), replace(vulkan.LIMITS, full_subgroups=False))


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
@pytest.mark.parametrize("name", LIVE)
def test_drawn_runs(tmp_path: Path, library: Path, name: str) -> None:
    """Runs with any flags of devices, batches and caches together account what llama.cpp accounts."""
    path = tmp_path / "live.gguf"
    archs.write(path, name, archs.records()[name].tensors)
    rng = random.Random(name)
    grid = {str(n): drawn(rng) for n in range(12)}
    rows = dict(zip(grid, asked(path, grid, vulkan.environment(library, as_discrete=True)), strict=True))

    assert sum(isinstance(row, tuple) for row in rows.values()) > 6
    assert list(differences(name, tmp_path, grid, rows)) == []


def drawn(rng: random.Random) -> Params:
    """Parameters of a simulated run, by chance."""
    two = rng.random() < 0.35
    settings: tuple[FlashAttn, ...] = "auto", "on", "off"
    type_k, flash_attn = rng.choice(["f16", "f32", "bf16", "q8_0", "q4_0"]), rng.choice(settings)
    whole = flash_attn != "off" or type_k in ("f16", "f32", "bf16")
    patterns = [(r"blk\.1\.", "CPU"), ("ffn_up", "CPU"), ("attn_k", "Vulkan0"), (r"output\.weight", "CPU")]
    return replace(
        vulkan.GRID["all"],
        devices=vulkan.DEVICES if two else vulkan.DEVICES[:1],
        tensor_split=rng.choice([(), (1.0, 1.0), (0.0, 1.0)]) if two else (),
        split_mode=rng.choice(["layer", "layer", "none"]) if two else "layer",
        n_ctx=rng.choice([256, 300, 4096, 9000]),
        n_ubatch=rng.choice([1, 31, 32, 100, 512]),
        n_seq_max=rng.choice([1, 1, 2, 3]),
        n_gpu_layers=rng.choice([-1, 0, 1, 2, 99]),
        flash_attn=flash_attn,
        offload_kqv=rng.random() < 0.75,
        op_offload=rng.random() < 0.7,
        kv_unified=rng.random() < 0.4,
        no_host=rng.random() < 0.2,
        use_extra_bufts=rng.random() < 0.5,
        type_k=type_k,
        type_v=type_k if whole and rng.random() < 0.7 else "f16",
        override_tensor=(rng.choice(patterns),) if rng.random() < 0.6 else (),
    )


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
