"""What should a user know before the model is loaded: what it will cost, whether it can fit, what is unwise?"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from ggufphys import GGUFPhysError, UnsupportedError, open_gguf, predict_memory
from ggufphys.machine.host import main_memory
from ggufphys.memory.attachments import Attachments, Draft
from ggufphys.memory.attachments.predict import predict_attached
from ggufphys.memory.predict import Predictor
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import Params
from ggufphys.plan.fit import Budget, Fitter
from ggufphys.plan.fit_flags import run_flags
from ggufphys.plan.fit_help import helps
from ggufphys.report.fit import help_text
from ggufphys.speed.kept import kept_machine
from ggufphys.speed.predict import predict_speed
from ggufphys.units import format_bytes
from server.accounts.footprint import Found
from server.accounts.forecast import Rates
from server.engine.media import Encoder
from server.engine.model_info import Adapter
from server.net.addresses import is_local, split

SCHEMA_VERSION: Final = 1
MAPPED: Final = "_Mapped"  # ends the names of buffers that are read from the file again where memory is short
HELD_AS_F32: Final = "F32"  # the numpy engine's name for weights that it keeps dequantised


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """The machine's memory: what is free for the taking, and all of it with swap."""

    available_bytes: int
    installed_bytes: int


def host_memory() -> HostMemory:
    """What this machine has, now."""
    memory = psutil.virtual_memory()
    return HostMemory(available_bytes=memory.available, installed_bytes=memory.total + psutil.swap_memory().total)


def resident_bytes() -> int:
    """What this process holds now: the HTTP server, before any model."""
    return int(psutil.Process().memory_info().rss)


def prediction(
    path: Path,
    params: Params,
    found: Found | None = None,
    adapters: Sequence[Adapter] = (),
    draft: Draft | None = None,
    encoder: Encoder | None = None,
) -> MemoryPrediction | str:
    """The predicted memory of the engine's process, or why there is none; `found` of it without a model."""
    base_bytes, base_file_bytes = (None, None) if found is None else (found.base_bytes, found.base_file_bytes)
    with open_gguf(path) as gguf, attached(adapters, draft, encoder) as beside:
        try:
            if beside is not None:
                return predict_attached(gguf, params, beside, base_bytes=base_bytes, base_file_bytes=base_file_bytes)
            return predict_memory(gguf, params, base_bytes=base_bytes, base_file_bytes=base_file_bytes)
        except UnsupportedError as error:
            return str(error)


@contextmanager
def attached(
    adapters: Sequence[Adapter], draft: Draft | None, encoder: Encoder | None = None
) -> Iterator[Attachments | None]:
    """What stands beside the model, its files open while the block runs; None: nothing."""
    with ExitStack() as stack:
        loras = tuple(stack.enter_context(open_gguf(adapter.path)) for adapter in adapters)
        if not loras and draft is None and encoder is None:
            yield None
        elif encoder is None:
            yield Attachments(loras=loras, draft=draft)
        else:
            yield Attachments(
                loras=loras, draft=draft, mmproj=stack.enter_context(open_gguf(encoder.path)),
                mmproj_offload=encoder.offload, image_max_tokens=encoder.image_max_tokens,
            )  # fmt: skip


def predicted_rates(path: Path, params: Params) -> Rates | str:
    """How fast it should be, where this machine has been calibrated (`ggufphys bench calibrate`); or why nobody knows.

    Empty: it never was, which is as it is on most machines and not worth a word.
    """
    try:
        machine = kept_machine()
        if machine is None:
            return ""
        with open_gguf(path) as gguf:
            speed = predict_speed(gguf, params, machine)
    except (GGUFPhysError, ValueError) as error:  # another version's rates, or a model that they know nothing of
        return str(error)
    if speed.decode is None:
        return "the model generates nothing"
    prompt, decode = speed.prefill.tok_per_s.value, speed.decode.tok_per_s.value
    return Rates(prompt_per_s=prompt, decode_per_s=decode, basis="predicted")


def prediction_line(predicted: MemoryPrediction | str, http_side_bytes: int = 0) -> str:
    """The prediction in one line; `http_side_bytes` are those of a process of its own beside the engine's."""
    if isinstance(predicted, str):
        return f"no prediction: {predicted}"
    parts = ", ".join(
        f"{name} {format_bytes(nbytes)}"
        for name, nbytes in (
            ("model", predicted.model_bytes),
            ("context", predicted.context_bytes),
            ("compute", predicted.compute_bytes),
            ("output", predicted.output_bytes),
            ("beside it", predicted.attachment_bytes),
        )
        if nbytes
    )
    beside = f" and the HTTP side's {format_bytes(http_side_bytes)}" if http_side_bytes else ""
    return (
        f"predicted: {format_bytes(predicted.total_bytes)} of buffers ({parts}), "
        f"about {format_bytes(predicted.process_bytes)} resident{beside}"
    )


def device_lines(predicted: MemoryPrediction | str) -> Iterator[str]:
    """What each node is predicted to hold, where RPC servers are among them."""
    if isinstance(predicted, str) or not any(device.name.startswith("RPC") for device in predicted.devices):
        return
    for device in predicted.devices:
        yield f"  {device.name}: {format_bytes(device.total_bytes)}"


def fits(predicted: MemoryPrediction, memory: HostMemory) -> tuple[str, str]:
    """Why it cannot run here, and why it will be tight; each empty when that is not so.

    Mapped weights can be read from the file again and again, so only what must stay in memory decides: the cache is
    written from end to end when the context is created, and where there is no room for it the process is killed then.
    """
    host, *devices = predicted.devices
    needed = host.context_bytes + host.compute_bytes + host.output_bytes
    beside = sum(
        term.nbytes
        for term in predicted.terms
        if term.quantity == "attachment" and term.device == host.name and not term.buffer.endswith(MAPPED)
    )
    needed += beside
    held = sum(term.nbytes for term in predicted.terms if term.quantity == "model" and term.buffer == HELD_AS_F32)
    if needed + held > memory.installed_bytes:
        weights, advice = (f", and weights as F32 {format_bytes(held)}", ", or --hold quantised") if held else ("", "")
        return (
            f"context, compute and output buffers{' and what stands beside' if beside else ''} need "
            f"{format_bytes(needed)}{weights}, this machine has "
            f"{format_bytes(memory.installed_bytes)} with swap: choose a smaller --ctx-size or --cache-type-k and -v"
            f"{advice}",
            "",
        )
    for device in devices:
        if device.memory_bytes is not None and device.total_bytes > device.memory_bytes:
            free = format_bytes(device.memory_bytes)
            return "", f"{device.name} needs {format_bytes(device.total_bytes)}, of which {free} are free"
    if predicted.process.needed_bytes > memory.available_bytes:
        return "", f"only {format_bytes(memory.available_bytes)} of memory are free"
    return "", ""


def too_large(
    path: Path,
    params: Params,
    predicted: MemoryPrediction,
    adapters: Sequence[Adapter] = (),
    draft: Draft | None = None,
    encoder: Encoder | None = None,
) -> str:
    """Why the machine cannot hold all of it, and what would fit there; empty when it can."""
    total = main_memory().total_bytes
    if not total or predicted.process_bytes <= total:
        return ""
    found = (
        f"about {format_bytes(predicted.process_bytes)} resident are predicted, this machine has {format_bytes(total)}"
    )
    instead = advice(path, params, total, adapters, draft, encoder)
    return f"{found}: {instead}; --oversized serves it all the same, from disk where memory ends"


def advice(
    path: Path, params: Params, ram_bytes: int, adapters: Sequence[Adapter] = (), draft: Draft | None = None,
    encoder: Encoder | None = None,
) -> str:  # fmt: skip
    """What `ggufphys fit` says of so much main memory, in short."""
    with open_gguf(path) as gguf, attached(adapters, draft, encoder) as beside:
        predictor = Predictor(gguf)
        predict = partial(predict_attached, gguf, attachments=beside, predictor=predictor) if beside else None
        try:
            fitter = Fitter(predictor, replace(params, n_ctx=0), Budget(ram_bytes=ram_bytes), predict=predict)
        except ValueError as error:  # a device whose memory nobody knows
            return str(error)
        fit = fitter.fit()
        if fit.fits:
            return f"it fits with {' '.join(run_flags(fit.trial.params, name_devices=False))}"
        return " or ".join(f"it would fit {help_text(each)}" for each in helps(fitter))


def unwise(host: str, api_keys: tuple[str, ...]) -> Iterator[str]:
    """Warnings about what was asked for."""
    reached = ", ".join(each for each in split(host) if not is_local(each))
    if not api_keys and reached:
        yield f"anyone who reaches {reached} may use this server; --api-key asks for a key"


def listening_json(url: str, path: Path, predicted: MemoryPrediction | str) -> str:
    """The document of --json: where it listens and what was predicted, in one line."""
    memory = None
    if not isinstance(predicted, str):
        names = (
            "model_bytes", "context_bytes", "compute_bytes", "output_bytes", "attachment_bytes", "total_bytes",
            "process_bytes",
        )  # fmt: skip
        memory = {name: getattr(predicted, name) for name in names}
    document = {"schema_version": SCHEMA_VERSION, "url": url, "model": str(path), "pid": os.getpid(), "memory": memory}
    return json.dumps(document)


def models_json(url: str, models: Mapping[str, tuple[Path, int]]) -> str:
    """The document of --json for several models: their files and predicted footprints, by name."""
    found = {name: {"model": str(path), "process_bytes": nbytes} for name, (path, nbytes) in models.items()}
    document = {"schema_version": SCHEMA_VERSION, "url": url, "models": found, "pid": os.getpid()}
    return json.dumps(document)
