"""ggml's operations in numpy, by name."""

from collections.abc import Mapping
from typing import Final

from refengine.ops import attention, elementwise, products, recurrent, rope, rows
from refengine.ops.step import Numerics, Operation, Run, Step

OPERATIONS: Final[Mapping[str, Operation]] = {
    **elementwise.OPERATIONS,
    **rows.OPERATIONS,
    **products.OPERATIONS,
    **rope.OPERATIONS,
    **attention.OPERATIONS,
    **recurrent.OPERATIONS,
}

__all__ = ["OPERATIONS", "Numerics", "Operation", "Run", "Step"]
