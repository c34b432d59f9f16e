"""`ggufphys measure MODEL`: runs it in a child process and sets what was measured beside what was predicted."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench import measure_report
from bench.devices import llama_devices
from bench.progress import Progress
from bench.supervise import ChildResult, child_command, run_child
from ggufphys import GGUFError, GGUFFile, MemoryPrediction, UnsupportedError, open_gguf, predict_memory
from ggufphys.flags.others import add_other_flags, other_flags_notes
from ggufphys.flags.run import add_run_arguments, count, params_from
from ggufphys.gguf.locate import local_path
from ggufphys.logs.lines import LoggedBuffer, logged_buffers, logged_bytes
from ggufphys.memory.predict import ProcessMemory, require_model
from ggufphys.memory.terms import Phase
from ggufphys.params import HOST, Params, resolve

QUANTITIES: Final = ("model", "context", "compute", "output")
PEAKS: Final[tuple[Phase, ...]] = ("weights", "context", "prefill", "decode")
PROCESS_TOLERANCE: Final = 0.03  # what --check allows for the process row
ENGINES: Final = ("llama.cpp", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity: predicted and measured bytes; `resolution_bytes` is how far the measured figure is rounded."""

    quantity: str
    predicted: int | None
    measured: int | None
    resolution_bytes: int
    source: str

    @property
    def difference(self) -> int | None:
        """Predicted less measured; 0 when they agree at the precision of the measured figure."""
        if self.predicted is None or self.measured is None:
            return None
        difference = self.predicted - self.measured
        return 0 if abs(difference) <= self.resolution_bytes else difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A whole run: rows, phases, speed, and how the child fared. `prediction` is None for unknown architectures.

    `heading` says what ran and how; `slack_bytes` is how far the process may be off however small it is.
    """

    heading: str
    path: Path
    params: Params
    prediction: MemoryPrediction | None
    buffers: tuple[LoggedBuffer, ...]
    rows: tuple[Row, ...]
    child: ChildResult
    retries: int
    notes: tuple[str, ...]
    engine: str = ENGINES[0]
    slack_bytes: int = 0

    @property
    def holds(self) -> bool:
        """Model and context equal llama.cpp's figures, and the process row is within tolerance."""
        by_name = {row.quantity: row for row in self.rows}
        exact = all(by_name[name].difference == 0 for name in ("model_bytes", "context_bytes"))
        process = by_name["process_bytes"]
        if process.predicted is None or process.measured is None:
            return False
        allowed = max(PROCESS_TOLERANCE * process.measured, self.slack_bytes)
        return exact and abs(process.predicted - process.measured) <= allowed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, what to run, what to print."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "model", nargs="?", default=argparse.SUPPRESS, metavar="MODEL", help="a GGUF file; of a split model any shard"
    )
    model.add_argument("-m", "--model", metavar="MODEL", help="the same, as llama.cpp has it")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("-n", "--predict", type=count, default=16, metavar="N", help="tokens to decode (default 16)")
    parser.add_argument(
        "-p", "--prompt", type=count, default=None, metavar="N", help="tokens to prefill (default: one physical batch)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw predicted and measured bytes (.png or .svg)")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"exit 1 unless model and context are exact and the process within {PROCESS_TOLERANCE:.0%}%",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0],
        help="what runs it: llama.cpp, or this project's model in numpy (default llama.cpp)",
    )  # fmt: skip
    parser.add_argument(
        "--hold", choices=("f32", "quantised"),
        help="numpy: keep weights dequantised in memory, or dequantise them piece by piece (default f32)",
    )  # fmt: skip
    add_run_arguments(parser, n_ctx=4096)  # a trained length of 131,072 is rarely what anybody wants to wait for
    add_other_flags(parser, but=("-n", "--predict", "-p", "--prompt"))


def run(args: argparse.Namespace) -> int:
    """Measure and print; exit 1 when the child failed even without extra buffers, or --check does not hold."""
    if args.plot is not None:
        measure_report.require_plot(args.plot)
    if args.hold and args.engine != "numpy":
        raise ValueError("--hold: llama.cpp holds weights in its own way; it is for --engine numpy")
    with Progress(enabled=sys.stderr.isatty() and not args.json) as progress:
        path = local_path(args.model)
        lengths = {"n_prompt": args.prompt, "n_predict": args.predict}
        if args.engine == "numpy":
            from bench.measure_numpy import measure_numpy

            result = measure_numpy(path, params_from(args), hold=args.hold or "f32", **lengths, on_event=progress)
        else:
            result = measure(path, params_from(args, found=llama_devices), **lengths, on_event=progress)
    print(measure_report.as_json(result) if args.json else measure_report.as_text(result))
    for note in (*other_flags_notes(args), *result.notes):
        print(f"ggufphys: {note}", file=sys.stderr)
    if args.plot is not None and result.child.ok:
        measure_report.plot(result, args.plot)
    return 1 if not result.child.ok or (args.check and not result.holds) else 0


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
    with open_gguf(path) as gguf:
        require_model(gguf)
        if gguf.missing_bytes:
            raise GGUFError(f"{path}: cannot be run: {gguf.notes[-1]}")
        n_prompt = prompt_length(gguf, params, n_prompt, n_predict)
        if params.n_threads == 0:  # settle it here: the prediction of scratch memory depends on it too
            params = replace(params, n_threads=physical_cores())
        result, retries, notes, params = _run_with_retry(path, params, n_prompt, n_predict, on_event, command)
        prediction = _predict(gguf, params, result, n_prompt)
    buffers = _buffers(result)
    return Measurement(
        heading=f"{path.name}, {params.n_threads} threads, mmap {'on' if params.use_mmap else 'off'}, "
        f"extra buffers {'on' if params.use_extra_bufts else 'off'}",
        path=path,
        params=params,
        prediction=prediction,
        buffers=buffers,
        rows=_rows(prediction, buffers, result),
        child=result,
        retries=retries,
        notes=notes,
    )


def prompt_length(gguf: GGUFFile, params: Params, n_prompt: int | None, n_predict: int) -> int:
    """How many tokens to prefill: those asked for, or one physical batch as far as there is room.

    Raises:
        ValueError: they do not fit into the context.
    """
    n_ctx_train = gguf.get_int(f"{gguf.architecture}.context_length", 0)
    context = resolve(params, n_ctx_train=n_ctx_train)
    room = context.n_ctx_seq - n_predict
    if room < 1:
        raise ValueError(f"{n_predict} tokens to decode do not fit into a sequence of {context.n_ctx_seq}")
    if n_prompt is not None and not 1 <= n_prompt <= room:
        raise ValueError(f"a prompt of {n_prompt} tokens and {n_predict} more: expected 1 to {room} for the prompt")
    return n_prompt or min(context.n_ubatch, room)


def physical_cores() -> int:
    """Cores that this process may run on."""
    from server.engine.library import default_threads

    return default_threads()


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


def failure(result: ChildResult) -> tuple[str, ...]:
    if result.ok:
        return ()
    if result.error is not None:
        return (f"failed in phase {result.failed_in!r}: {result.error['message']}",)
    said = f": {result.stderr.strip().splitlines()[-1]}" if result.stderr.strip() else ""
    return (f"the child ended with {result.exit} in phase {result.failed_in!r}{said}",)


def _predict(gguf: GGUFFile, params: Params, result: ChildResult, n_prompt: int) -> MemoryPrediction | None:
    library = result.phase("library")
    memory = library.memory if library is not None else None
    try:
        return predict_memory(
            gguf,
            replace(params, use_amx=library is not None and "AMX_INT8 = 1" in library.facts.get("system_info", "")),
            base_bytes=memory.rss_bytes if memory is not None else None,
            base_file_bytes=memory.file_bytes if memory is not None else None,
            n_prompt=n_prompt,
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


def process_rows(prediction: MemoryPrediction | None, result: ChildResult) -> Iterator[Row]:
    """The process in steady decode, of which kind, what is locked if asked for, and its peak until each phase."""
    predicted = prediction.process if prediction is not None else None
    decode = result.phase("decode")
    locks = prediction is not None and prediction.use_mlock
    for kind in ("rss", "anon", "file", *(("locked",) if locks else ())):
        measured = getattr(decode.memory, f"{kind}_bytes") if decode is not None else None
        if kind == "rss" or measured is not None:
            yield Row(
                quantity="process_bytes" if kind == "rss" else f"process_{kind}_bytes",
                predicted=_of_process(predicted, kind),
                measured=measured,
                resolution_bytes=0,
                source="resident memory after decode" if kind != "locked" else "locked memory after decode",
            )
    for name in PEAKS:
        phase = result.phase(name)
        if phase is not None and phase.memory.peak_bytes is not None:
            yield Row(
                quantity=f"peak_{name}_bytes",
                predicted=predicted.phase(name).peak_bytes if predicted is not None else None,
                measured=phase.memory.peak_bytes,
                resolution_bytes=0,
                source=f"most resident memory until {name} was done",
            )


def _of_process(predicted: ProcessMemory | None, kind: str) -> int | None:
    if predicted is None:
        return None
    return predicted.phases[-1].rss_bytes if kind == "rss" else int(getattr(predicted, f"{kind}_bytes"))


def _device_rows(prediction: MemoryPrediction, buffers: tuple[LoggedBuffer, ...]) -> Iterator[Row]:
    """The same by device: a buffer belongs to the device whose name it begins with, to the host otherwise."""
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


__all__ = ["Measurement", "Row", "add_arguments", "measure", "run"]
