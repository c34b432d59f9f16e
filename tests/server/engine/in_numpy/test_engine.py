"""The numpy engine beside llama.cpp's, on the embedded model."""

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

import refengine
from ggufphys.embedded import MODEL
from ggufphys.graph.ir import Tensor
from ggufphys.params import Device, Params
from refengine.arrays import Array
from server.engine.events import Finished, Piece
from server.engine.in_numpy.engine import (
    Hold,
    NumpyEngine,
    NumpyRunner,
    check_params,
    load_options,
    without_effect,
)
from server.engine.llama.engine import LlamaEngine
from server.engine.loop.threaded import ThreadedEngine
from server.engine.protocol import EngineStatus
from server.engine.request import GenerationRequest
from server.engine.runner import Runner
from server.engine.sampling import Sampling

PROMPT = "import os\n\ndef read_lines(path):\n"


def greedy(engine: ThreadedEngine, prompt: str, n: int) -> str:
    """The text of `n` tokens behind a prompt."""
    assert engine.wait_until_settled(60) is EngineStatus.READY, engine.error
    request = GenerationRequest(prompt=engine.tokenize(prompt), max_tokens=n, sampling=Sampling(temperature=0))
    generation, pieces = engine.submit(request), []
    while not isinstance(event := generation.next_event(60), Finished):
        assert event is not None
        pieces += [event.text] if isinstance(event, Piece) else []
    return "".join(pieces)


@pytest.mark.parametrize("hold", ["f32", "quantised"])
def test_same_text_as_llama_cpp(hold: Hold) -> None:
    """Both go on with a prompt alike, and say the same of the model; llama.cpp alone may rank, embed and have slots."""
    params = Params(n_ctx=256, n_threads=1)
    engines = (LlamaEngine(MODEL, params), NumpyEngine(refengine.load(MODEL, **load_options(params, hold))))
    theirs, ours = (greedy(engine, PROMPT, 16) for engine in engines)
    infos = [engine.info for engine in engines]
    for engine in engines:
        engine.close()

    assert len(ours) > 20
    assert ours == theirs
    assert replace(infos[0], pair=None, n_text_max=None, takes_slots=False) == infos[1]


def test_needs_no_llama_cpp() -> None:
    """Neither importing the server nor generating with numpy loads llama.cpp, which need not be installed."""
    script = (
        "import sys; sys.modules['llama_cpp'] = None\n"
        "import refengine, server.start.main\n"
        "from ggufphys.embedded import MODEL\n"
        "print(*refengine.load(MODEL, n_ctx=64).generate('import ', 4), sep='')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_implements_runner() -> None:
    """What mypy checks: the numpy model is what an engine asks for."""
    runner: Runner = NumpyRunner(refengine.load(MODEL, n_ctx=32), "name")

    assert runner.info.name == "name"
    assert runner.keep(0)


def test_close_while_loading() -> None:
    """Closing an engine whose weights are still being dequantised ends the load with the next matrix."""
    entered, proceed, made = threading.Event(), threading.Event(), []

    model = refengine.load(MODEL, n_ctx=64)
    read = model.weights.array

    def slow(tensor: Tensor) -> Array:
        entered.set()
        assert proceed.wait(60)
        made.append(tensor.name)
        return read(tensor)

    model.weights.array = slow  # type: ignore[method-assign]
    engine = NumpyEngine(model)
    assert entered.wait(60)
    closer = threading.Thread(target=engine.close)
    closer.start()
    while not engine._closing.is_set():
        time.sleep(0.002)
    proceed.set()
    closer.join(60)

    assert engine.status is EngineStatus.CLOSED
    assert len(made) == 1


def test_refuses_what_it_cannot_do() -> None:
    """Several sequences and devices are refused, what changes nothing is warned of."""
    check_params(Params(n_batch=64, n_threads=3))
    with pytest.raises(ValueError, match="-np"):
        check_params(Params(n_seq_max=2))
    with pytest.raises(ValueError, match="--device"):
        check_params(Params(devices=(Device(name="CUDA0", memory_bytes=1 << 30),)))

    warnings = list(without_effect(Params(n_batch=64, n_threads=3)))
    assert len(warnings) == 2
    assert "OPENBLAS_NUM_THREADS" in warnings[1]
    assert list(without_effect(Params())) == []
