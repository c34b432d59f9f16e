"""`ggufphys measure MODEL --engine numpy`: the numpy engine in a child process, beside what was predicted of itself."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import refengine
from bench.measure.measurement import Measurement, Row, failure, physical_cores, process_rows, prompt_length
from bench.measure.speed import speed_rows
from bench.measure.supervise import ChildResult, run_child
from ggufphys import MemoryPrediction
from ggufphys.gguf.lengths import kept_lengths
from ggufphys.machine.children import module_command
from ggufphys.params import Params
from refengine.weights import Hold

QUANTITIES: Final = ("model", "context", "compute")
SLACK_BYTES: Final = 16 << 20  # of a small process temporaries are a large part, and what malloc keeps varies
WITHOUT_EFFECT: Final = {
    "n_seq_max": "-np", "kv_unified": "-kvu", "n_batch": "-b", "n_outputs_max": "--n-outputs-max",
    "devices": "--device and --rpc", "n_gpu_layers": "-ngl", "offload_kqv": "-nkvo", "override_tensor": "-ot",
    "n_cpu_moe": "-ncmoe", "use_extra_bufts": "--no-repack", "use_mmap": "--no-mmap and other load modes",
    "use_mlock": "--mlock", "no_host": "--no-host",
}  # fmt: skip


def numpy_command(config: dict[str, Any]) -> list[str]:
    """The command line of the measured child."""
    return module_command("bench.measure.numpy_child", json.dumps(config))


def measure_numpy(
    path: Path,
    params: Params,
    *,
    hold: Hold = "f32",
    n_prompt: int | None = None,
    n_predict: int = 16,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    command: Callable[[dict[str, Any]], list[str]] = numpy_command,
) -> Measurement:
    """Run the model in a child and compare.

    Args:
        path: the model file.
        params: how it is run; one sequence on the host, whatever they say.
        hold: weights as F32 in memory, or dequantised piece by piece.
        n_prompt: tokens to prefill; None for one physical batch, less where the context is short.
        n_predict: tokens to decode.
        on_event: sees the child's events, for a progress bar.
        command: the child's command line for a configuration.

    Raises:
        GGUFError, UnsupportedError, ValueError: the file or the parameters are refused before anything runs.
    """
    load: dict[str, Any] = {
        "type_k": params.type_k, "type_v": params.type_v, "flash_attn": params.flash_attn != "off", "hold": hold,
        "n_ctx": params.n_ctx, "n_ubatch": params.n_ubatch, "swa_full": params.swa_full,
        "n_threads": params.n_threads or physical_cores(),
    }  # fmt: skip
    with kept_lengths():
        model = refengine.load(path, **load)
        n_prompt = prompt_length(model.gguf, replace(params, n_seq_max=1), n_prompt, n_predict)
        config = {
            "path": os.fspath(path.absolute()), "load": load, "n_threads": load["n_threads"],
            "n_prompt": n_prompt, "n_predict": n_predict,
        }  # fmt: skip
        result = run_child(command(config), on_event)
    library = result.phase("library")
    prediction = refengine.predict_footprint(
        model,
        n_prompt=n_prompt,
        n_predict=n_predict,
        base_bytes=library.memory.rss_bytes if library is not None else None,
        base_file_bytes=library.memory.file_bytes if library is not None else None,
    )
    return Measurement(
        heading=f"{path.name}, numpy, {load['n_threads']} threads, weights held "
        + ("as F32" if hold == "f32" else "as they are"),
        path=path,
        params=replace(params, n_threads=load["n_threads"]),
        prediction=prediction,
        buffers=(),
        rows=(*_rows(prediction, result), *process_rows(prediction, result)),
        speed_rows=speed_rows(result),
        child=result,
        retries=0,
        notes=(*failure(result), *_notes(params)),
        engine="numpy",
        slack_bytes=SLACK_BYTES,
    )


def _rows(prediction: MemoryPrediction, result: ChildResult) -> Iterator[Row]:
    decode = result.phase("decode")
    held = decode.facts["held"] if decode is not None else {}
    for quantity in QUANTITIES:
        yield Row(
            quantity=f"{quantity}_bytes",
            predicted=getattr(prediction, f"{quantity}_bytes"),
            measured=held.get(quantity),
            resolution_bytes=0,
            source="arrays that the engine holds",
        )


def _notes(params: Params) -> Iterator[str]:
    """What was asked for and is of no use here."""
    for name, flags in WITHOUT_EFFECT.items():
        if getattr(params, name) != getattr(Params(), name):
            yield f"{flags}: without effect with the numpy engine, which runs one sequence on the host"
