"""What does a run tell? Predicted and measured side by side, whatever engine ran."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.measure.speed import SpeedRow
from bench.measure.supervise import ChildResult
from ggufphys import GGUFFile, MemoryPrediction
from ggufphys.context import resolve
from ggufphys.logs.lines import LoggedBuffer
from ggufphys.memory.phases import ProcessMemory
from ggufphys.memory.terms import Phase
from ggufphys.params import Params

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

    `heading` says what ran and how, `no_speed` why speed is not predicted; `slack_bytes` is how far the process may be
    off however small it is.
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
    speed_rows: tuple[SpeedRow, ...] = ()
    no_speed: str = ""
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
    from server.engine.llama.library import default_threads

    return default_threads()


def failure(result: ChildResult) -> tuple[str, ...]:
    """What a child that failed said, or what ended it; nothing of one that did not."""
    if result.ok:
        return ()
    if result.error is not None:
        return (f"failed in phase {result.failed_in!r}: {result.error['message']}",)
    said = f": {result.stderr.strip().splitlines()[-1]}" if result.stderr.strip() else ""
    return (f"the child ended with {result.exit} in phase {result.failed_in!r}{said}",)


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
