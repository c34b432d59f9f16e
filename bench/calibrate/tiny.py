"""Models so small that a step is next to nothing but what llama.cpp does around it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.calibrate.graphs import Runnable
from bench.calibrate.jobs import N_LAYERS, Step
from bench.synth.write import write_file
from ggufphys import Params, open_gguf
from ggufphys.graph.devices.runs import Runs
from ggufphys.plan.quantize import parse_file_type
from ggufphys.speed.predict import Speeds
from ggufphys.speed.rates import Machine, Processor
from ggufphys.synth.catalogue import Shape
from ggufphys.synth.plan import plan_file
from server.engine.llama.batch import Batch
from server.engine.llama.library import create_context, load_model

N_VOCAB: Final = 512
MANY_TOKENS: Final = 1 << 16
PARAMS: Final = Params(n_ctx=512, n_batch=64, n_ubatch=64, n_outputs_max=1)


def tiny_model(folder: Path, n_layer: int, n_vocab: int = N_VOCAB) -> Path:
    """A llama of so many layers, written once."""
    path = folder / f"tiny-{n_layer}-{n_vocab}.gguf"
    if not path.exists():
        shape = Shape(
            name="tiny", architecture="llama", source="made for calibrating", n_vocab=n_vocab, tied=True, n_params=None,
            keys={
                "context_length": 512, "embedding_length": 128, "block_count": n_layer, "feed_forward_length": 128,
                "rope.dimension_count": 64, "attention.head_count": 2, "attention.head_count_kv": 2,
                "attention.layer_norm_rms_epsilon": 1e-5,
            },
        )  # fmt: skip
        write_file(plan_file(shape, parse_file_type("F32")), path, seed=1)
    return path


@contextmanager
def step_runner(folder: Path, job: Step) -> Iterator[Runnable]:
    """Decodes a token at the same position again and again."""
    params = replace(PARAMS, n_threads=job.n_threads)
    with (
        load_model(tiny_model(folder, job.n_layers), params) as model,
        create_context(model, params) as context,
        Batch(context, 64) as batch,
    ):
        api = context.api

        def run() -> None:
            api.llama_memory_seq_rm(context.memory, 0, 8, -1)
            batch.clear()
            batch.add((5,), seq_id=0, start=8, logits_of_last=True)
            batch.decode(context)

        batch.add(range(1, 9), seq_id=0, start=0, logits_of_last=True)
        batch.decode(context)
        yield run, 1


def token_seconds(folder: Path) -> float:
    """What each token of a vocabulary takes to load: what a model with many of them takes longer than one with few."""
    seconds = []
    for n_vocab in (N_VOCAB, MANY_TOKENS):
        path = tiny_model(folder, N_LAYERS[0], n_vocab)
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            with load_model(path, PARAMS):
                taken.append(time.perf_counter() - started)
        seconds.append(min(taken))
    return max(0.0, seconds[1] - seconds[0]) / (MANY_TOKENS - N_VOCAB)


def step_nodes(folder: Path, host: Processor, n_layer: int) -> tuple[float, int]:
    """What the nodes of such a step take on a processor, and how many nodes its graph has."""
    machine = Machine(name="this", basis="calibrated", source="", processors=[host])
    with open_gguf(tiny_model(folder, n_layer)) as gguf:
        speeds = Speeds(Runs(gguf).run(PARAMS), machine, host.n_threads)
        (_, step), *_ = speeds.decode(1, 8).steps
    return step.total.total - step.outside_s, round(step.n_nodes)
