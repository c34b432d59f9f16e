"""What would each of many models cost, run the same way, and does it fit? A row a file, or why there is none."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ggufphys.errors import GGUFPhysError, UnsupportedError
from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.locate import is_pattern, is_remote
from ggufphys.gguf.split import model_of
from ggufphys.graph.devices.runs import require_model
from ggufphys.loads import Refusal, RefusedError
from ggufphys.loads.refusal import headline
from ggufphys.memory.predict import predict_weights
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import total
from ggufphys.params import Params
from ggufphys.paths import plain
from ggufphys.plan.fits import fits
from ggufphys.plan.totals import Totals, totals_of

if TYPE_CHECKING:
    from ggufphys.plan.quantized import QuantizedFile

Opener = Callable[[str], AbstractContextManager[GGUFFile]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of every file: how it is run and predicted, does it fit into `limit_bytes`, what if quantised?"""

    params: Params
    predict: Callable[[GGUFFile, Params], MemoryPrediction]
    limit_bytes: int | None = None
    quantize: "Callable[[GGUFFile], Sequence[QuantizedFile]] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow(Totals):
    """One model. Figures that are not known are None, and `reason` then says why.

    `needed_bytes` and `fits` are the answer to a limit: the most that main memory must hold, and whether that and every
    device with a known size do. `store` is the program that keeps the file, and `label` its name there.
    """

    path: str
    label: str = ""
    store: str = ""
    kind: str | None = None  # None: not readable
    architecture: str | None = None
    name: str | None = None
    file_type: str | None = None
    n_params: int | None = None
    n_tensors: int | None = None
    n_shards: int | None = None
    file_bytes: int | None = None
    tensor_bytes: int | None = None
    bpw: float | None = None
    n_ctx: int | None = None
    needed_bytes: int | None = None
    fits: bool | None = None
    quantized: "tuple[QuantizedFile, ...]" = ()
    loads: str | None = None  # would llama.cpp load it: accepted or refused; None: not a model, or not known
    reasons: tuple[Refusal, ...] = ()
    reason: str = ""

    @property
    def readable(self) -> bool:
        """Is it a GGUF at all?"""
        return self.kind is not None


def find_models(texts: Iterable[str], on_error: Callable[[OSError], None] = lambda error: None) -> list[str]:
    """Every model that is named: folders searched for *.gguf, patterns expanded, a split model as its first shard.

    Files that are named by themselves are kept whatever they are called, so that a typing error gets its row.
    `on_error` is told about folders that cannot be searched.
    """
    found: dict[str, str] = {}  # what tells models apart -> the path to open
    for text in texts:
        for path in _expand(text, on_error):
            found.setdefault(path if is_remote(path) else model_of(path), path)
    return list(found.values())


def file_row(row: FileRow, asked: Asked, opened: Opener) -> FileRow:
    """Open the model of a row and answer what is asked; whatever goes wrong becomes the row's reason."""
    path = row.path
    try:
        with opened(path) as gguf:
            row = replace(
                row,
                kind=gguf.kind,
                architecture=gguf.architecture,
                name=gguf.name,
                file_type=gguf.file_type,
                n_params=gguf.n_params,
                n_tensors=len(gguf.tensors),
                n_shards=len(gguf.shards),
                file_bytes=gguf.file_bytes,
                tensor_bytes=gguf.tensor_bytes,
                bpw=gguf.bpw,
            )
            return _predicted(row, gguf, asked)
    except (GGUFPhysError, ValueError) as error:
        return replace(row, reason=short_reason(error, path))
    except OSError as error:
        return replace(row, reason=error.strerror or str(error))


def _predicted(row: FileRow, gguf: GGUFFile, asked: Asked) -> FileRow:
    try:
        require_model(gguf)
    except UnsupportedError:
        return replace(row, reason=f"not a model by itself: {gguf.kind}")
    try:
        prediction = asked.predict(gguf, asked.params)
    except RefusedError as error:
        return replace(row, loads="refused", reasons=error.refusals, reason=_first(error.refusals))
    except UnsupportedError as error:
        weights = predict_weights(gguf, asked.params)
        return replace(row, model_bytes=total(weights, "model"), reason=short_reason(error, row.path))
    verdict = "refused" if prediction.refusals else "accepted"
    row = replace(row, loads=verdict, reasons=prediction.refusals, reason=_first(prediction.refusals))
    row = replace(row, n_ctx=prediction.context.n_ctx, **totals_of(prediction))
    if asked.limit_bytes is not None:
        verdicts = fits(prediction, asked.limit_bytes)
        row = replace(row, needed_bytes=verdicts[0].needed_bytes, fits=all(verdict.holds for verdict in verdicts))
    if asked.quantize is None:
        return row
    try:
        return replace(row, quantized=tuple(asked.quantize(gguf)))
    except (GGUFPhysError, ValueError) as error:  # what the file takes as it is stands all the same
        return replace(row, reason=short_reason(error, row.path))


def _first(refusals: Sequence[Refusal]) -> str:
    """Why llama.cpp would not load it, in short."""
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return f"{headline(refusals)}: {refusals[0]}{more}" if refusals else ""


def short_reason(error: Exception, path: str) -> str:
    """The message without the path, which has a column of its own; a list of choices on one line.

    Errors name the path as `plain` writes it, without the `./` that a search in `.` puts in front.
    """
    return " ".join(str(error).removeprefix(f"{path}: ").removeprefix(f"{plain(path)}: ").split())


def _expand(text: str, on_error: Callable[[OSError], None]) -> Iterator[str]:
    if is_remote(text):
        yield text
    elif Path(text).is_dir():
        found = [
            os.path.join(folder, name)  # noqa: PTH118  # os.walk's own terms; a Path would drop a leading ./
            for folder, _, names in os.walk(text, onerror=on_error)
            for name in names
            if name.lower().endswith(".gguf")
        ]
        yield from sorted(found)
    elif is_pattern(text):
        yield from sorted(glob.glob(text, recursive=True))  # noqa: PTH207  # absolute patterns too
    else:
        yield text
