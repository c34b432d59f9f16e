"""The figures of a prediction, as rows of a table have them."""

from typing import Any

from ggufphys.frozen import dataclass, fields
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.memory.terms import Basis, Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Bytes by quantity, named as in `MemoryPrediction`; None where they are not known."""

    model_bytes: int | None = None
    context_bytes: int | None = None
    compute_bytes: int | None = None
    output_bytes: int | None = None
    total_bytes: int | None = None
    process_bytes: int | None = None
    basis: dict[Quantity, Basis] | None = None


def totals_of(prediction: MemoryPrediction) -> dict[str, Any]:
    """What the fields of `Totals` are for this prediction, by name."""
    return {field.name: getattr(prediction, field.name) for field in fields(Totals)}
