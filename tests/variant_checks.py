"""Predictions for the variants of `variants.py` beside what llama.cpp said of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from ggufphys import GGUFError, Params, UnsupportedError, open_gguf
from ggufphys.machine import host
from ggufphys.memory.predict import Predictor
from tests import variants
from tests.variants import Row, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantCheck:
    """One variant, run in one way: what we say, and what llama.cpp said."""

    variant: Variant
    params: Params
    ours: Row
    llama_cpp: Row

    @property
    def counts(self) -> bool:
        """Is there something to compare with? Where llama.cpp aborts there is not."""
        return self.llama_cpp != "aborts"

    @property
    def exact(self) -> bool:
        """Are model, context and compute bytes the same, or do both refuse?"""
        return self.ours == self.llama_cpp


def checks(variant: Variant, rows: Sequence[Row], folder: Path) -> Iterator[VariantCheck]:
    """Every way of running one variant, on the CPU that the records are of; its header is written to the folder."""
    path = folder / "model.gguf"
    path.write_bytes(variants.header(variant))
    with open_gguf(path) as gguf, mock.patch.object(host, "cpu_features", return_value=variants.CPU_FEATURES):
        try:
            predictor = Predictor(gguf)
        except (UnsupportedError, GGUFError):
            predictor = None
        for params, row in zip(variants.WAYS, rows, strict=True):
            yield VariantCheck(variant=variant, params=params, ours=_ours(predictor, params), llama_cpp=row)


def _ours(predictor: Predictor | None, params: Params) -> Row:
    if predictor is None:
        return "refused"
    try:
        memory = predictor.predict(params)
    except (ValueError, GGUFError):
        return "refused"
    return memory.model_bytes, memory.context_bytes, memory.compute_bytes
