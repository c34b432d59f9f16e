"""Speed chooses between ways that fit: what is as fast with more on the devices stays, and what is left is used."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ggufphys import Device, Params, open_gguf
from ggufphys.graph.devices.placed import Placement
from ggufphys.memory.predict import Predictor
from ggufphys.plan.fastest import WORTH, fastest, reads_faster
from ggufphys.plan.fit import Budget, Fit, Fitter, Trial
from ggufphys.report.fit import fit_section
from tests.ggufphys.models import shape_header

GIB = 1 << 30


def by(
    tmp_path: Path,
    devices: tuple[Device, ...],
    *,
    plain: float,
    reads: float = 0.5,
    per_layer: float = 0.0,
    ram_bytes: int = 12 * GIB,
) -> tuple[Fit, Fit]:
    """What fits best and what is fastest, if weights as they are take `plain` times the speed, and each layer more.

    They take `reads` times the speed of reading prompts, which layers on a device double.
    """
    with open_gguf(shape_header(tmp_path / "m.gguf", "llama-3.1-8b")) as gguf:
        params = Params(devices=devices, type_k="f16", type_v="f16")
        fitter = Fitter(Predictor(gguf), params, Budget(ram_bytes=None if devices else ram_bytes))
        fit = fitter.fit("speed")

        def rate(trial: Trial) -> float:
            layers = max(trial.params.n_gpu_layers, 0) if trial.params.devices else 0
            return (1.0 if trial.params.use_extra_bufts else plain) * (1 + per_layer * layers)

        def reading(trial: Trial) -> float:
            layers = max(trial.params.n_gpu_layers, 0) if trial.params.devices else 0
            return (1.0 if trial.params.use_extra_bufts else reads) * (1 + layers)

        return fit, fastest(fitter, fit, rate, reading)


def test_a_little_faster_is_no_reason(tmp_path: Path) -> None:
    """Weights stay repacked, as llama.cpp has them, where being without is hardly faster."""
    fit, chosen = by(tmp_path, (), plain=(1 + WORTH) / 2)
    assert chosen == fit


def test_prompts_decide_where_both_generate_as_fast(tmp_path: Path) -> None:
    """Repacked weights are no faster by rule: where others read prompts 1.6 times as fast and generate as fast, these
    are taken; where they generate less, they are not.
    """
    assert not by(tmp_path, (), plain=0.97, reads=1.6)[1].trial.params.use_extra_bufts
    assert by(tmp_path, (), plain=0.97, reads=1.02)[1].trial.params.use_extra_bufts
    assert by(tmp_path, (), plain=0.8, reads=1.6)[1].trial.params.use_extra_bufts


def test_the_other_layout_is_told(tmp_path: Path) -> None:
    """What reads prompts faster and is not chosen is there to be told, if it fits; what the user fixed is not."""
    with open_gguf(shape_header(tmp_path / "m.gguf", "llama-3.1-8b")) as gguf:
        for ram_bytes, fixed, told in ((24 * GIB, (), True), (24 * GIB, ("use_extra_bufts",), False)):
            params = Params(type_k="f16", type_v="f16")
            fitter = Fitter(Predictor(gguf), params, Budget(ram_bytes=ram_bytes), fixed=fixed)
            fit = fitter.fit("speed")
            other = reads_faster(fitter, fit, lambda trial: 1.0 if trial.params.use_extra_bufts else 1.5)
            assert (other is not None) is told
            assert other is None or not other.params.use_extra_bufts
            assert reads_faster(fitter, fit, lambda trial: 1.0) is None


def test_what_is_left_is_used(tmp_path: Path) -> None:
    """Weights that aren't repacked leave room, which goes to what comes behind speed: here to mapping the file."""
    fit, chosen = by(tmp_path, (), plain=2)
    assert fit.trial.params.use_extra_bufts
    assert not chosen.trial.params.use_extra_bufts
    assert (fit.trial.params.use_mmap, chosen.trial.params.use_mmap) == (False, True)
    assert chosen.fits
    assert all(not trial.fits for goal, trial in chosen.next_steps.items() if goal != "repack")


def test_layers_that_are_as_fast_stay(tmp_path: Path) -> None:
    """Layers stay on a device that makes decoding hardly slower: prompts are read faster there."""
    gpu = (Device(name="CUDA0", memory_bytes=24 * GIB),)
    assert by(tmp_path, gpu, plain=1, per_layer=-0.001)[1].trial.params.n_gpu_layers == 33
    assert by(tmp_path, gpu, plain=1, per_layer=-0.02)[1].trial.params.n_gpu_layers < 5


def test_a_step_that_fits_is_not_too_much(tmp_path: Path) -> None:
    """A step more that fits and is slower says how fast it is, not by how much it fails; and it has no price."""
    _, chosen = by(tmp_path, (), plain=2, ram_bytes=24 * GIB)
    speed: Any = SimpleNamespace(tok_per_s=SimpleNamespace(value=40.5))
    pace: Any = SimpleNamespace(prefill=speed, decode=speed)
    placement = Placement(devices=(), layers=("Host",) * 32, output="Host", offload_kqv=True)
    section = fit_section(chosen, placement, command=["x"], flags=["--no-repack"], pace=lambda _: pace)
    text = "\n".join(section.lines)
    assert "--repack: would fit, generate 40.5 tokens/s and read prompts at 40.5" in text
    assert not re.search(r"-[\d,.]+ MiB too much", text)
    assert "the price of" not in text
    value: Any = section.value
    assert [step["fits"] for step in value["next_steps"] if step["goal"] == "repack"] == [True]
