"""ggml's operations in numpy, by name."""

from collections.abc import Mapping
from typing import Final

from refengine.ops import attention, elementwise, hyper, products, recurrent, rope, rows, sparse
from refengine.ops.step import Numerics, Operation, Run, Step

OPERATIONS: Final[Mapping[str, Operation]] = {
    **elementwise.OPERATIONS,
    **rows.OPERATIONS,
    **products.OPERATIONS,
    **rope.OPERATIONS,
    **attention.OPERATIONS,
    **recurrent.OPERATIONS,
    **sparse.OPERATIONS,
    **hyper.OPERATIONS,
}

__all__ = ["OPERATIONS", "Numerics", "Operation", "Run", "Step"]
