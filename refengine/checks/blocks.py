"""What has to agree with ggml and gguf? Random and special blocks of every type, and a model's own tensors.

A type that gets a kernel in `dequant.FORMATS` is checked here from then on.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import numpy as np

from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.gguf import GGMLType, GGUFFile, TensorInfo
from refengine.checks.compare import Row, Verdict, compare
from refengine.checks.samples import Sample, random_samples, special_sample, tensor_samples
from refengine.dequant.table import FORMATS
from refengine.peers import ggml, gguf_py

SAMPLE_BYTES: Final = 64 << 20  # of a model's tensors, unless all are asked for: a few seconds
REFERENCES: Final = {"ggml": ggml.dequantize, "gguf": gguf_py.dequantize}

Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was compared with which versions, and what came of it."""

    llama_cpp: str
    gguf: str
    numpy: str
    seed: int
    model: str | None
    synthetic: tuple[Row, ...]
    tensors: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        """1: something differs; 3: tensor data is missing; 4: nothing (of the model) could be checked; else 0."""
        verdicts = [row.verdict for row in self.synthetic + self.tensors]
        if Verdict.DIFFERS in verdicts:
            return 1
        if Verdict.MISSING in verdicts:
            return 3
        return 4 if all(row.verdict is Verdict.UNSUPPORTED for row in self.tensors or self.synthetic) else 0


def verify(
    model: GGUFFile | None,
    *,
    types: Sequence[GGMLType] | None = None,
    n_blocks: int = 10_000,
    seed: int = 0,
    budget_bytes: int | None = SAMPLE_BYTES,
    progress: Progress = lambda nbytes: None,
) -> Report:
    """Compare random and special blocks of every type, then `model`'s own.

    Args:
        model: None for synthetic blocks alone.
        types: the only types to look at, of both kinds; None for all.
        n_blocks: random blocks of each type.
        seed: of the random blocks.
        budget_bytes: how much of the model's tensor data to compare, about; None for all of it.
        progress: called with the bytes of tensor data done since its last call.

    Raises:
        MissingExtraError: llama_cpp or gguf is not installed.
        UnsupportedError: the model is of the other byte order, or has no tensors (of these types).
    """
    return Report(
        llama_cpp=ggml.version(),
        gguf=gguf_py.version(),
        numpy=np.__version__,
        seed=seed,
        model=str(model.path) if model else None,
        synthetic=tuple(chain.from_iterable(synthetic_rows(t, n_blocks, seed) for t in types or FORMATS)),
        tensors=tuple(tensor_rows(model, types, budget_bytes, progress)) if model else (),
    )


def synthetic_rows(ggml_type: GGMLType, n_blocks: int, seed: int) -> Iterator[Row]:
    """One row of random blocks, one of special ones; a type without a kernel gets one row that says so."""
    if ggml_type not in FORMATS:
        yield Row(type=ggml_type.name, source="random", verdict=Verdict.UNSUPPORTED)
        return
    yield compare(ggml_type, "random", random_samples(ggml_type, n_blocks, seed), REFERENCES)
    yield compare(ggml_type, "special", [special_sample(ggml_type)], REFERENCES)


def tensor_rows(
    model: GGUFFile,
    types: Sequence[GGMLType] | None,
    budget_bytes: int | None,
    progress: Progress = lambda nbytes: None,
) -> Iterator[Row]:
    """A row for each type among the model's tensors, in order of its number, and one for those without their data.

    Raises as `verify` does.
    """
    for shard in model.shards:
        if shard.header.byte_order != sys.byteorder:
            raise UnsupportedError(
                f"{shard.path}: the file is {shard.header.byte_order}-endian, this machine {sys.byteorder}-endian: "
                "ggml can't read its tensors here"
            )
    chosen = [t for t in model.tensors if types is None or t.ggml_type in types]
    if not chosen:
        found = ", ".join(sorted({t.type_name for t in model.tensors})) or "no tensors at all"
        raise UnsupportedError(f"{model.path}: no tensors to verify; it holds {found}")
    checkable_bytes = sum(t.nbytes or 0 for t in chosen if t.ggml_type in FORMATS)
    share = 1.0 if budget_bytes is None else min(1.0, budget_bytes / max(1, checkable_bytes))
    for number in sorted({int(t.ggml_type) for t in chosen}):
        yield from _type_rows(model, [t for t in chosen if t.ggml_type == number], share, progress)


def _type_rows(model: GGUFFile, tensors: Sequence[TensorInfo], share: float, progress: Progress) -> Iterator[Row]:
    type_name, ggml_type = tensors[0].type_name, tensors[0].ggml_type
    if not isinstance(ggml_type, GGMLType) or ggml_type not in FORMATS:
        yield Row(type=type_name, source=_count(tensors), verdict=Verdict.UNSUPPORTED)
        return
    present: list[tuple[TensorInfo, memoryview]] = []
    missing: list[TensorInfo] = []
    note = ""
    for tensor in tensors:
        try:
            present.append((tensor, model.tensor_data(tensor)))
        except GGUFError as error:
            missing.append(tensor)
            note = note or str(error)

    def samples() -> Iterator[Sample]:
        for tensor, data in present:
            for sample in tensor_samples(tensor, data, share):
                yield sample
                progress(sample.raw.nbytes)

    if present:
        source = _count([tensor for tensor, _ in present])
        row = compare(ggml_type, source, samples(), REFERENCES)
        whole = row.n_weights == sum(tensor.n_elements for tensor, _ in present)
        yield row if whole else replace(row, source=f"{source}, sampled")
    if missing:
        yield Row(type=type_name, source=_count(missing), verdict=Verdict.MISSING, note=note)


def _count(tensors: Sequence[TensorInfo]) -> str:
    return f"{len(tensors)} tensor{'s' if len(tensors) > 1 else ''}"
