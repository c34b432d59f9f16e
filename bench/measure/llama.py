"""llama.cpp runs a model in a child process, phase by phase, beside what was predicted."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from bench.measure.measurement import Measurement, Row, failure, physical_cores, process_rows, prompt_length
from bench.measure.speed import keep_errors, predicted, speed_rows
from bench.measure.supervise import ChildResult, child_command, run_child
from ggufphys import GGUFFile, MemoryPrediction, UnsupportedError, open_gguf, predict_memory
from ggufphys.gguf.lengths import kept_lengths
from ggufphys.graph.devices.runs import require_model
from ggufphys.loads.check import require_data, require_loads
from ggufphys.logs.lines import LoggedBuffer, logged_buffers, logged_bytes
from ggufphys.params import HOST, Params
from ggufphys.report.inspection import HEADINGS

QUANTITIES: Final = ("model", "context", "compute", "output")


def measure(
    path: Path,
    params: Params,
    *,
    n_prompt: int | None = None,
    n_predict: int = 16,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    command: Callable[[dict[str, Any]], list[str]] = child_command,
) -> Measurement:
    """Run the model in a child and compare. A child that dies by a signal is run again without extra buffers.

    Args:
        path: the model file.
        params: how it is run.
        n_prompt: tokens to prefill; None for one physical batch, less where the context is short.
        n_predict: tokens to decode.
        on_event: sees the child's events, for a progress bar.
        command: the child's command line for a configuration.

    Raises:
        GGUFError, UnsupportedError, ValueError: the file or the parameters are refused before anything runs.
    """
    with kept_lengths(), open_gguf(path) as gguf:
        require_model(gguf)
        require_data(gguf)
        require_loads(gguf, params)
        n_prompt = prompt_length(gguf, params, n_prompt, n_predict)
        if params.n_threads == 0:  # settle it here: the prediction of scratch memory depends on it too
            params = replace(params, n_threads=physical_cores())
        result, retries, notes, params = _run_with_retry(path, params, n_prompt, n_predict, on_event, command)
        prediction = _predict(gguf, params, result, n_prompt)
        figures, no_speed = predicted(gguf, params, result)
        speeds = speed_rows(result, figures)
        keep_errors(gguf, params, speeds)
    buffers = _buffers(result)
    return Measurement(
        heading=f"{path.name} {HEADINGS[params.run_as]}, installed llama.cpp b{params.llama_build}, "
        f"{params.n_threads} threads, "
        f"mmap {'on' if params.use_mmap else 'off'}, extra buffers {'on' if params.use_extra_bufts else 'off'}",
        path=path,
        params=params,
        prediction=prediction,
        buffers=buffers,
        rows=_rows(prediction, buffers, result),
        speed_rows=speeds,
        child=result,
        retries=retries,
        notes=notes,
        no_speed=no_speed,
    )


# What ggml prints before it ends the process. Source: llama.cpp 0c1e570 ggml/src/ggml.c, ggml_abort.
ASSERTION: Final = re.compile(r"^.*(?:GGML_ASSERT\(.*|GGML_ABORT.*|fatal error.*)$", re.MULTILINE)


def _run_with_retry(
    path: Path,
    params: Params,
    n_prompt: int,
    n_predict: int,
    on_event: Callable[[dict[str, Any]], None],
    command: Callable[[dict[str, Any]], list[str]],
) -> tuple[ChildResult, int, tuple[str, ...], Params]:
    def attempt(p: Params) -> ChildResult:
        config = {
            "path": os.fspath(path.absolute()),
            "params": asdict(p),
            "n_prompt": n_prompt,
            "n_predict": n_predict,
        }
        return run_child(command(config), on_event)

    result = attempt(params)
    if result.ok or isinstance(result.exit, int):
        return result, 0, failure(result), params
    notes = (f"llama.cpp died by {result.exit} in phase {result.failed_in!r}",)
    if result.exit == "SIGBUS":  # the same would come again, or another file
        return result, 0, (f"{notes[0]}: {path} was cut short while it was mapped, or cannot be read",), params
    if assertion := ASSERTION.search(result.stderr):  # it ended itself, and would again
        return result, 0, (f"{notes[0]}: {assertion[0].strip()}",), params
    if not params.use_extra_bufts:
        return result, 0, notes, params
    why = (
        "The kernel kills so what takes more memory than there is"
        if result.exit == "SIGKILL"
        else "Wheels built on a CPU with AMX crash so (llama.cpp issue 20824): rebuild with "
        "CFLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'"
    )
    notes = (f"{notes[0]}; ran it again without extra buffers (--no-repack). {why}",)
    params = replace(params, use_extra_bufts=False)
    result = attempt(params)
    return result, 1, (*notes, *failure(result)), params


def _predict(gguf: GGUFFile, params: Params, result: ChildResult, n_prompt: int) -> MemoryPrediction | None:
    library = result.phase("library")
    memory = library.memory if library is not None else None
    facts = library.facts if library is not None else {}
    try:
        return predict_memory(
            gguf,
            replace(params, use_amx="AMX_INT8 = 1" in facts.get("system_info", ""), use_blas=bool(facts.get("blas"))),
            base_bytes=memory.rss_bytes if memory is not None else None,
            base_file_bytes=memory.file_bytes if memory is not None else None,
            n_prompt=n_prompt,
            n_sampled=1,
        )
    except UnsupportedError:
        return None


def _buffers(result: ChildResult) -> tuple[LoggedBuffer, ...]:
    context = result.phase("context")
    return logged_buffers(context.facts["log"]) if context is not None else ()


def _rows(
    prediction: MemoryPrediction | None, buffers: tuple[LoggedBuffer, ...], result: ChildResult
) -> tuple[Row, ...]:
    return (
        *(
            _row(f"{quantity}_bytes", getattr(prediction, f"{quantity}_bytes", None), logged_bytes(buffers, quantity))
            for quantity in QUANTITIES
        ),
        *(_device_rows(prediction, buffers) if prediction is not None and len(prediction.devices) > 1 else ()),
        *process_rows(prediction, result),
    )


def _device_rows(prediction: MemoryPrediction, buffers: tuple[LoggedBuffer, ...]) -> Iterator[Row]:
    """A row a device: a buffer belongs to the device whose name it begins with, to the host otherwise."""
    names = [device.name for device in prediction.devices]
    for device in prediction.devices:
        own = [b for b in buffers if next((n for n in names if b.buffer.startswith(n)), HOST) == device.name]
        for quantity in QUANTITIES:
            logged = logged_bytes(own, quantity)
            if logged is not None:
                yield _row(f"{quantity}_bytes {device.name}", getattr(device, f"{quantity}_bytes"), logged)


def _row(quantity: str, predicted: int | None, logged: tuple[int, int] | None) -> Row:
    return Row(
        quantity=quantity,
        predicted=predicted,
        measured=logged[0] if logged is not None else None,
        resolution_bytes=logged[1] if logged is not None else 0,
        source="llama.cpp's log",
    )
