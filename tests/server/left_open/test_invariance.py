"""--batch-invariant: how many slots make a block for which weights, what the context becomes, and what is refused."""

import argparse
from pathlib import Path

import pytest

from ggufphys import UnsupportedError, open_gguf
from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.params import Device, Params
from server.flags.serve import add_arguments
from server.left_open import invariance
from server.left_open.invariance import block_of, invariant
from server.left_open.slots import describe_slots
from server.start.asked import asked_model

NO_TILES = {"GGML_CPU_TILED_MM": "0"}


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser.parse_args([*flags, "--batch-invariant"])


@pytest.fixture(autouse=True)
def on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv(invariance.TILES, raising=False)


@pytest.mark.parametrize(
    ("file_type", "blocks"),
    [("F32", (2, 2, 2)), ("BF16", (2, 2, 2)), ("Q8_0", (2, 2, 2)), ("Q4_0", (8, 4, 2)), ("Q4_K_M", (8, 4, 2)),
     ("Q6_K", (8, 2, 2))],
)  # fmt: skip
def test_blocks_by_types(tmp_path: Path, file_type: str, blocks: tuple[int, int, int]) -> None:
    """Two rows where kernels differ for one alone, four where weights are repacked, eight where they go in tiles: by
    default, without tiles, and without repacking either.
    """
    path = tmp_path / "model.gguf"
    assert main(["synth", "llama-110m", "--type", file_type, "--layers", "1", "--sparse", "-q", "-o", str(path)]) == 0
    with open_gguf(path) as gguf:
        found = (
            block_of(gguf, Params(), {}),
            block_of(gguf, Params(), NO_TILES),
            block_of(gguf, Params(use_extra_bufts=False), NO_TILES),
        )
    assert found == blocks


@pytest.mark.parametrize(
    ("flags", "n_slots", "n_each"),
    [(["-c", "1024"], 4, 256), (["-c", "1024", "-np", "2"], 2, 512), (["-c", "1536", "-np", "3"], 4, 512)],
)  # fmt: skip
def test_slots(flags: list[str], n_slots: int, n_each: int) -> None:
    """Slots come in whole blocks and share nothing; those beyond what -np says are as long as the others, and are
    counted in what is predicted, since they are part of the context.
    """
    asked = asked_model(parsed(str(MODEL), *flags))
    assert (asked.block, asked.made.n_seq_max, asked.made.n_ctx_seq, asked.made.kv_unified) == (
        2,
        n_slots,
        n_each,
        False,
    )
    assert asked.params.n_outputs_max == n_slots
    said = describe_slots(asked.made, vars(parsed(*flags)), asked.block)
    assert said.startswith(f"{n_slots} slots of {n_each - 1:,} tokens each (--batch-invariant: answers in blocks of 2")


@pytest.mark.parametrize(
    ("flags", "why"),
    [(["-kvu"], "in one cache"), (["--spec-type", "ngram-simple"], "guesses"), (["--embeddings"], "no answers"),
     (["--engine", "numpy"], "one request at a time"), (["-ub", "64"], "n_ubatch = 64 and n_batch = 2048, expect")],
)  # fmt: skip
def test_flags_that_forbid_it(flags: list[str], why: str) -> None:
    """By name, and before anything is loaded."""
    with pytest.raises(ValueError, match=f"--batch-invariant: .*{why}"):
        asked_model(parsed(str(MODEL), *flags))


@pytest.mark.parametrize(
    ("shape", "flags", "why"),
    [("mamba2-2.7b", [], "mamba2 keeps more than keys and values"), ("gemma-3-4b", [], "--swa-full keeps all"),
     ("gemma-3-4b", ["--swa-full"], "")],
)  # fmt: skip
def test_models_of_which_nothing_is_promised(tmp_path: Path, shape: str, flags: list[str], why: str) -> None:
    """Those that keep a state, and windows, unless all of them is kept."""
    path = tmp_path / "model.gguf"
    assert main(["synth", shape, "--sparse", "-q", "-o", str(path)]) == 0
    if not why:
        assert invariant(parsed(*flags), Params(swa_full=True, n_seq_max=4), path)[1] == 8
        return
    with pytest.raises(UnsupportedError, match=why):
        invariant(parsed(*flags), Params(n_seq_max=4), path)


def test_experts_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows an expert gets is others' doing, and what goes by that is refused; without tiles nothing does."""
    path = tmp_path / "model.gguf"
    assert main(["synth", "qwen3-30b-a3b", "--layers", "1", "--sparse", "-q", "-o", str(path)]) == 0
    with pytest.raises(UnsupportedError, match=r"kernels of Q4_K, Q6_K go by it; GGML_CPU_TILED_MM=0 forbids that"):
        invariant(parsed(), Params(n_seq_max=4), path)
    monkeypatch.setenv(invariance.TILES, "0")
    assert invariant(parsed(), Params(n_seq_max=4), path)[1] == 4


def test_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is promised of processors and devices whose kernels were not looked at."""
    with pytest.raises(UnsupportedError, match=r"not of CUDA0: --device none"):
        invariant(parsed(), Params(devices=(Device(name="CUDA0"),)), MODEL)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnsupportedError, match=r"x86-64 alone, and this is aarch64"):
        invariant(parsed(), Params(n_seq_max=4), MODEL)
