"""What `inspect` says of devices beside their figures."""

from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.commands.devices import left_notes
from ggufphys.gguf import open_gguf
from ggufphys.limits import DeviceLimits
from ggufphys.memory.predict import Predictor
from ggufphys.params import HOST, Device, Params
from ggufphys.units import format_bytes
from tests import archs


@pytest.mark.parametrize(
    ("file_type", "device", "n_told"), [
        ("TQ1_0", "CUDA0", 1), ("TQ1_0", "MTL0", 1), ("TQ2_0", "MTL0", 0), ("TQ2_0", "SYCL0", 1), ("TQ1_0", "none", 0),
        ("Q4_K_M", "CUDA0", 0),
    ],
)  # fmt: skip
def test_weights_that_a_device_cannot_multiply_are_told(
    file_type: str, device: str, n_told: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that was offloaded and still runs from main memory is no surprise: which weights stay there, and why."""
    assert main(["synth", "llama-110m", "--type", file_type, "--sparse", "-o", str(tmp_path / "m.gguf")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "m.gguf"), "--device", device]) == 0
    assert capsys.readouterr().out.count(f"with which {device} cannot multiply: these stay in main memory") == n_told


def test_layers_that_are_not_offloaded_leave_nothing_behind(tmp_path: Path) -> None:
    """With no layer on a device nothing is said to stay behind."""
    path = tmp_path / "m.gguf"
    assert main(["synth", "llama-110m", "--type", "TQ1_0", "--sparse", "-o", str(path), "-q"]) == 0
    device = Device(name="CUDA0", memory_bytes=8 << 30)
    with open_gguf(path) as gguf:
        assert left_notes(gguf, Params(devices=(device,)))
        assert left_notes(gguf, Params(devices=(device,), n_gpu_layers=0)) == ()


@pytest.mark.parametrize(("range_bytes", "left"), [(1 << 28, False), (1 << 19, True)])
def test_weights_that_are_too_large_for_a_device_are_told(range_bytes: int, left: bool, tmp_path: Path) -> None:
    """What a backend refuses by size stays in main memory, too: the note has the bytes that are placed there."""
    path = tmp_path / "m.gguf"
    path.write_bytes(archs.header("llama"))
    params = Params(devices=(Device(name="Vulkan0", limits=DeviceLimits(storage_buffer_range_bytes=range_bytes)),))
    with open_gguf(path) as gguf:
        notes = left_notes(gguf, params)
        placed = Predictor(gguf).placed(params).weights
        on_host = {t.name: t.nbytes or 0 for b, tensors in placed.items() if b.device == HOST for t in tensors}
        nbytes = sum(n for name, n in on_host.items() if name != "token_embd.weight")

        assert len(notes) == left
        assert bool(nbytes) is left
        assert all(note.startswith(f"{format_bytes(nbytes)} of weights (") for note in notes)
        assert all("are too large for Vulkan0, whose operations take tensors of 512.00 KiB" in note for note in notes)


def test_weights_whose_operation_a_device_lacks_are_told(tmp_path: Path) -> None:
    """Vulkan has no scan of Mamba's first kind: the weights that only that reads stay behind, and it is said."""
    path = tmp_path / "m.gguf"
    path.write_bytes(archs.header("mamba"))
    with open_gguf(path) as gguf:
        (note,) = left_notes(gguf, Params(devices=(Device(name="Vulkan0", limits=DeviceLimits()),)))

    assert "(blk.0.ssm_a, blk.1.ssm_a" in note
    assert "are for an operation that Vulkan0 lacks" in note


def test_weights_that_a_pattern_places_are_not_told(tmp_path: Path) -> None:
    """What the user keeps on the host or sends to a device himself is nobody's refusal."""
    path = tmp_path / "m.gguf"
    path.write_bytes(archs.header("mamba"))
    device = Device(name="Vulkan0", limits=DeviceLimits())
    with open_gguf(path) as gguf:
        assert left_notes(gguf, Params(devices=(device,), override_tensor=((r"ssm_a", "CPU"),))) == ()
