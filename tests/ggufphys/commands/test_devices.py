"""What `inspect` says of devices beside their figures."""

from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.commands.devices import left_notes
from ggufphys.gguf import open_gguf
from ggufphys.params import Device, Params


@pytest.mark.parametrize(
    ("file_type", "device", "n_told"), [("TQ1_0", "CUDA0", 1), ("TQ1_0", "none", 0), ("Q4_K_M", "CUDA0", 0)]
)
def test_weights_that_a_device_cannot_multiply_are_told(
    file_type: str, device: str, n_told: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that was offloaded and still runs from main memory is no surprise: which weights stay there, and why."""
    assert main(["synth", "llama-110m", "--type", file_type, "--sparse", "-o", str(tmp_path / "m.gguf")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "m.gguf"), "--device", device]) == 0
    assert capsys.readouterr().out.count("with which CUDA0 cannot multiply: these stay in main memory") == n_told


def test_layers_that_are_not_offloaded_leave_nothing_behind(tmp_path: Path) -> None:
    """With no layer on a device nothing is said to stay behind."""
    path = tmp_path / "m.gguf"
    assert main(["synth", "llama-110m", "--type", "TQ1_0", "--sparse", "-o", str(path), "-q"]) == 0
    device = Device(name="CUDA0", memory_bytes=8 << 30)
    with open_gguf(path) as gguf:
        assert left_notes(gguf, Params(devices=(device,)))
        assert left_notes(gguf, Params(devices=(device,), n_gpu_layers=0)) == ()
