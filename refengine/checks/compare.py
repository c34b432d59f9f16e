"""Do two dequantisations of the same blocks agree, bit for bit?

Equal means the same 32 bits, so that +0 and -0 differ, except that any NaN equals any NaN: which payload a NaN has
after an operation is the processor's choice, not the format's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf

import numpy as np

from ggufphys.errors import UnsupportedError
from ggufphys.gguf import SIZES, GGMLType
from refengine.blocks import F32, U8
from refengine.checks.samples import Sample
from refengine.dequant.table import dequantize

Reference = Callable[[GGMLType, U8], F32]  # raises UnsupportedError where it has no answer


class Verdict(StrEnum):
    """What a row's comparison came to."""

    EXACT = "bit-exact"
    DIFFERS = "DIFFERS"
    UNSUPPORTED = "no conversion"
    MISSING = "data missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far our weights are from a reference's: the number that differ, by how much at most, and the first.

    `max_abs` is infinite where a NaN or Inf faces another value.
    """

    n_different: int = 0
    max_abs: float = 0.0
    first: str | None = None

    def __add__(self, later: "Difference") -> "Difference":
        return Difference(
            n_different=self.n_different + later.n_different,
            max_abs=max(self.max_abs, later.max_abs),
            first=self.first or later.first,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Blocks of one type from one source, against ggml and gguf; None where there was nothing to compare with."""

    type: str
    source: str
    n_blocks: int = 0
    n_weights: int = 0
    ggml: Difference | None = None
    gguf: Difference | None = None
    verdict: Verdict
    note: str | None = None


def difference(ours: F32, theirs: F32, sample: Sample, block_size: int) -> Difference:
    """Compare two dequantisations, `(n_weights,)`, of a sample."""
    if np.array_equal(ours.view(np.uint32), theirs.view(np.uint32)):
        return Difference()
    differs = (ours.view(np.uint32) != theirs.view(np.uint32)) & ~(np.isnan(ours) & np.isnan(theirs))
    indices = np.flatnonzero(differs)
    if not len(indices):
        return Difference()
    a, b = ours[indices], theirs[indices]
    max_abs = inf
    if np.isfinite(a).all() and np.isfinite(b).all():
        max_abs = float(np.abs(a.astype(np.float64) - b).max())  # F32's range may not hold it
    first = int(indices[0])
    return Difference(
        n_different=len(indices),
        max_abs=max_abs,
        first=f"{sample.name}, block {sample.first_block + first // block_size}, weight {first % block_size}: "
        f"{a[0]!s} here, {b[0]!s} there",
    )


def compare(ggml_type: GGMLType, source: str, samples: Iterable[Sample], references: Mapping[str, Reference]) -> Row:
    """Dequantise each sample with our kernel and with `references`' "ggml" and "gguf", and add up the differences."""
    size = SIZES[ggml_type]
    found: dict[str, Difference] = {}
    n_blocks = 0
    for sample in samples:
        ours = dequantize(ggml_type, sample.raw)
        n_blocks += sample.raw.size // size.type_size
        for name, reference in references.items():
            try:
                theirs = reference(ggml_type, sample.raw)
            except UnsupportedError:
                continue
            found[name] = found.get(name, Difference()) + difference(ours, theirs, sample, size.block_size)
    if not found:
        verdict = Verdict.UNSUPPORTED
    else:
        verdict = Verdict.DIFFERS if any(d.n_different for d in found.values()) else Verdict.EXACT
    return Row(
        type=ggml_type.name,
        source=source,
        n_blocks=n_blocks,
        n_weights=n_blocks * size.block_size,
        ggml=found.get("ggml"),
        gguf=found.get("gguf"),
        verdict=verdict,
    )
