"""Predictions for the small models of `archs.py` beside what llama.cpp said of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ggufphys import MemoryPrediction, Params, UnsupportedError, open_gguf
from ggufphys.gguf import GGUFFile
from ggufphys.memory.predict import Predictor
from tests import archs

Sizes = tuple[tuple[int, int], ...]  # (model, context) bytes: one pair in all, or one for the host and for each device


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One configuration of one model: what we say, and what llama.cpp said, "refused" and "aborts" included.

    `compute` are our and llama.cpp's compute bytes, where both gave any and no device was asked for.
    """

    params: Params
    ours: Sizes | str
    llama_cpp: Sizes | str
    compute: tuple[int, int] | None = None
    compute_is_exact: bool = False

    @property
    def counts(self) -> bool:
        """Is there something to compare with? Where llama.cpp aborts there is not."""
        return self.llama_cpp != "aborts"

    @property
    def exact(self) -> bool:
        """Are the bytes the same, or both refuse?"""
        return self.ours == self.llama_cpp


def checks(name: str, folder: Path) -> Iterator[Check]:
    """Every configuration of one model; its header is written to the folder, without weights, which nothing reads."""
    record = archs.records()[name]
    path = folder / "model.gguf"
    path.write_bytes(archs.header(name))
    with open_gguf(path) as gguf:
        predictor = _predictor(gguf)
        for params, row in zip(archs.GRID, record.rows, strict=True):
            memory = _predict(predictor, params)
            if isinstance(memory, str) or isinstance(row, str):
                ours = memory if isinstance(memory, str) else ((memory.model_bytes, memory.context_bytes),)
                yield Check(params=params, ours=ours, llama_cpp=row if isinstance(row, str) else (row[:2],))
                continue
            yield Check(
                params=params,
                ours=((memory.model_bytes, memory.context_bytes),),
                llama_cpp=(row[:2],),
                compute=(memory.compute_bytes, row[2]),
                compute_is_exact=memory.basis["compute"] == "exact",
            )
        for params, sizes in zip(archs.DEVICE_GRID, record.device_rows, strict=True):
            memory = _predict(predictor, params)
            by_device = (
                memory if isinstance(memory, str) else tuple((d.model_bytes, d.context_bytes) for d in memory.devices)
            )
            yield Check(params=params, ours=by_device, llama_cpp=sizes)


def _predictor(gguf: GGUFFile) -> Predictor | None:
    """What `predict_memory` makes anew for each question; None for a file that cannot be run alone."""
    try:
        return Predictor(gguf, force=True)  # the recorded sizes count, where the file could be loaded at all
    except UnsupportedError:
        return None


def _predict(predictor: Predictor | None, params: Params) -> MemoryPrediction | str:
    try:
        return predictor.predict(params) if predictor is not None else "refused"
    except ValueError:
        return "refused"
