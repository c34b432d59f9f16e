"""What a user is told before the model is loaded: whether it can fit, what is unwise, how fast it will be."""

from dataclasses import replace
from pathlib import Path

import pytest

import refengine
from bench.clip.measure import measure
from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from ggufphys.machine.host import MainMemory
from ggufphys.memory.attachments import Draft
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import Params
from ggufphys.speed.kept import keep
from server.engine.media import Encoder
from server.start import beforehand
from server.start.beforehand import HostMemory, fits, predicted_rates, prediction, too_large, unwise
from tests.server.seeing_model import write_seeing_model
from tests.server.start.serving import TIMEOUT_S, serving


def test_fits(chain_path: Path) -> None:
    """What must stay in memory and exceeds the machine is refused; what exceeds the free memory is warned of."""
    predicted = prediction(chain_path, Params(n_ctx=256, n_outputs_max=1))
    assert isinstance(predicted, MemoryPrediction)
    needed = predicted.context_bytes + predicted.compute_bytes + predicted.output_bytes
    free = predicted.process_bytes

    assert fits(predicted, HostMemory(available_bytes=free, installed_bytes=needed)) == ("", "")
    refusal, tight = fits(predicted, HostMemory(available_bytes=free - 1, installed_bytes=needed))
    assert (refusal, "free" in tight) == ("", True)
    refusal, tight = fits(predicted, HostMemory(available_bytes=0, installed_bytes=needed - 1))
    assert ("--ctx-size" in refusal, tight) == (True, "")


def test_a_draft_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands beside the model counts: in what must stay in memory, in the footprint, and in what would fit."""
    params = Params(n_ctx=16384, n_seq_max=4, n_outputs_max=16, kv_unified=True)
    with open_gguf(MODEL) as gguf:
        draft = Draft(gguf=gguf)
        alone, beside = (prediction(MODEL, params, draft=each) for each in (None, draft))
        assert isinstance(alone, MemoryPrediction)
        assert isinstance(beside, MemoryPrediction)
        own = alone.context_bytes + alone.compute_bytes + alone.output_bytes
        drafts = beside.attachment_bytes - alone.model_bytes  # whose weights are mapped
        memory = HostMemory(available_bytes=1 << 40, installed_bytes=own + drafts)
        assert fits(beside, memory) == ("", "")
        refusal, _ = fits(beside, replace(memory, installed_bytes=own + drafts - 1))
        assert "what stands beside need" in refusal

        monkeypatch.setattr(
            beforehand, "main_memory", lambda: MainMemory(total_bytes=beside.process_bytes - 1, available_bytes=0)
        )
        assert too_large(MODEL, params, alone) == ""
        refusal = too_large(MODEL, params, beside, draft=draft)
        n_ctx = int(refusal.split("it fits with -c ")[1].split()[0])
        fitting = prediction(MODEL, replace(params, n_ctx=n_ctx), draft=draft)
        assert isinstance(fitting, MemoryPrediction)
        assert 0 < n_ctx < 16384
        assert fitting.process_bytes < beside.process_bytes


def test_an_encoder_is_predicted(tmp_path: Path) -> None:
    """To the byte, where its graph is written, beside the model."""
    model, encoder = write_seeing_model(tmp_path, "llama")
    alone, beside = (prediction(model, Params(n_ctx=256), encoder=each) for each in (None, Encoder(path=str(encoder))))
    assert not isinstance(alone, str)
    assert not isinstance(beside, str)
    (truth,) = measure([encoder])
    found = sum(term.nbytes for term in beside.terms if term.quantity == "attachment" and "padding" not in term.name)
    assert found == sum(truth.values())
    assert beside.total_bytes - alone.total_bytes == beside.attachment_bytes


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A footprint beyond the machine is told with settings that fit, by prediction, or with what would help."""
    params = Params(n_ctx=16384, n_seq_max=4, n_outputs_max=4, kv_unified=True)
    predicted = prediction(MODEL, params)
    assert isinstance(predicted, MemoryPrediction)
    total = [predicted.process_bytes]
    monkeypatch.setattr(beforehand, "main_memory", lambda: MainMemory(total_bytes=total[0], available_bytes=0))

    assert too_large(MODEL, params, predicted) == ""
    total[0] -= 1
    refusal = too_large(MODEL, params, predicted)
    n_ctx = int(refusal.split("it fits with -c ")[1].split()[0])
    assert 0 < n_ctx < 16384
    total[0] = 10 << 20
    assert "it would fit with" in too_large(MODEL, params, predicted)


def test_weights_held_as_f32_must_fit() -> None:
    """Weights that are kept dequantised cannot be read again: where they do not fit, the refusal says what to do."""
    model = refengine.load(MODEL, n_ctx=64)
    predicted = refengine.predict_footprint(model, n_prompt=8)
    needed = predicted.context_bytes + predicted.compute_bytes
    held = sum(term.nbytes for term in predicted.terms if term.buffer == "F32")

    assert held > 0
    assert fits(predicted, HostMemory(available_bytes=1 << 40, installed_bytes=needed + held)) == ("", "")
    refusal, _ = fits(predicted, HostMemory(available_bytes=1 << 40, installed_bytes=needed + held - 1))
    assert "--hold quantised" in refusal


def test_unwise() -> None:
    """A server open to the network without a key is warned of."""
    assert list(unwise("127.0.0.1", ())) == []
    assert list(unwise("0.0.0.0", ("key",))) == []
    assert ["0.0.0.0" in line for line in unwise("0.0.0.0", ())] == [True]
    assert ["reaches 10.0.0.1 may" in line for line in unwise("127.0.0.1,10.0.0.1,/run/a.sock", ())] == [True]


def test_rates_of_another_schema_are_told(chain_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a calibration is kept that can't be used, the line that says where it listens says so, and the log why."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert predicted_rates(chain_path, Params()) == ""  # never calibrated: not worth a word
    keep('{"schema_version": 1}')
    with serving(str(chain_path), "-c", "256") as server:
        server.process.terminate()
        _, log = server.process.communicate(timeout=TIMEOUT_S)

    assert "; no speed is predicted, for the reason above; Ctrl-C ends it" in server.lines[1]
    assert log.count("no speed is predicted: a calibration of schema 1, expected") == 1
