"""What Vulkan's shaders take in the process, where the device is the processor."""

from dataclasses import replace
from pathlib import Path

from ggufphys import open_gguf, predict_memory
from ggufphys.limits import DeviceLimits
from ggufphys.memory.driver import ATTENTION_OF_HEADS, COMPILED_WITH_HEADS, OPERATIONS
from ggufphys.params import Device, Params
from tests import archs
from tests.random_runs import reshaped

INSIDE = Device(name="Vulkan0", memory_bytes=8 << 30, limits=DeviceLimits(kind="cpu"))
GPU = replace(INSIDE, limits=DeviceLimits())
BASE = Params(n_ctx=512, devices=(INSIDE,))
SHADERS = "Vulkan: shaders as the driver keeps them"
LACKING = "Vulkan: shaders that the driver's cache lacks"


def process_terms(folder: Path, name: str, params: Params = BASE, n_prompt: int = 16) -> dict[str, int]:
    """Bytes of the process' terms that are Vulkan's, by name."""
    path = folder / "model.gguf"
    path.write_bytes(archs.header(name))
    with open_gguf(path) as gguf:
        prediction = predict_memory(gguf, params, n_prompt=n_prompt)
    return {t.name: t.nbytes for t in prediction.terms if t.quantity == "process" and "Vulkan" in t.name}


def test_a_gpu_has_memory_of_its_own(tmp_path: Path) -> None:
    """Shaders count in the process only where the device is the processor itself."""
    assert SHADERS in process_terms(tmp_path, "llama")
    assert process_terms(tmp_path, "llama", replace(BASE, devices=(GPU,))) == {}


def test_operations_count(tmp_path: Path) -> None:
    """Attention and experts have shaders of their own."""
    llama, experts, scans = (process_terms(tmp_path, name)[SHADERS] for name in ("llama", "qwen3moe", "mamba2"))

    assert llama - scans > (ATTENTION_OF_HEADS[0][1] - 4_000) << 10
    assert experts - llama > OPERATIONS["MUL_MAT_ID"] << 10


def test_large_heads_have_large_shaders(tmp_path: Path) -> None:
    """Attention's shaders grow with its heads, as measured for 64 and 256, and most so what compiling them leaves."""
    path, found = tmp_path / "model.gguf", {}
    for size in (64, 256):
        draft = reshaped("llama", {"llama.attention.key_length": size, "llama.attention.value_length": size})
        assert draft is not None
        draft.write(path)
        with open_gguf(path) as gguf:
            terms = predict_memory(gguf, BASE).terms
        found[size] = {t.name: t.nbytes >> 10 for t in terms if "Vulkan" in t.name}
    for term, ((_, least), (_, most)) in ((SHADERS, ATTENTION_OF_HEADS), (LACKING, COMPILED_WITH_HEADS)):
        assert found[256][term] - found[64][term] == most - least


def test_a_device_that_runs_nothing(tmp_path: Path) -> None:
    """It is opened; shaders are made where something runs there, and that is large batches on fetched weights."""
    none = replace(BASE, n_gpu_layers=0)

    assert SHADERS not in process_terms(tmp_path, "llama", none)
    assert "Vulkan: the device" in process_terms(tmp_path, "llama", none)
    assert SHADERS in process_terms(tmp_path, "llama", none, n_prompt=32)


def test_a_short_prompt_touches_less(tmp_path: Path) -> None:
    """Of the compute buffer on such a device as much is resident as a prompt of that length takes."""
    short, long = (process_terms(tmp_path, "llama", n_prompt=n)["compute buffer, touched on Vulkan0"] for n in (8, 512))

    assert 0 < 16 * short < long
