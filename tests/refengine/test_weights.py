"""How does the engine hold weights? As the file's numbers, laid as products read them fastest."""

import numpy as np
import pytest

import refengine
from ggufphys.embedded import MODEL
from ggufphys.gguf import GGMLType
from ggufphys.graph.ir import Tensor
from refengine.batch import batch_of
from refengine.quant.convert import to_f32
from refengine.weights import Hold


def first_matrix(model: refengine.Model) -> Tensor:
    """What the first product multiplies with."""
    [batch] = model.batches([batch_of([(0, 0, 0, True)])])
    return next(node.src[0] for node in model.graph(batch).nodes if node.op == "MUL_MAT")


@pytest.mark.parametrize("hold", ["f32", "quantised"])
def test_a_matrix_is_that_of_the_file(hold: Hold) -> None:
    """Held or not, a matrix has the file's numbers; what is held lies column by column and is counted once."""
    model = refengine.load(MODEL, hold=hold)
    weights, tensor = model.weights, first_matrix(model)

    found = [weights.f32(tensor) for _ in range(2)]

    assert tensor.type is GGMLType.F16
    assert np.array_equal(found[0], to_f32(weights.array(tensor), tensor.type))
    assert (found[0] is found[1]) is (hold == "f32")
    assert weights.held_bytes == (found[0].nbytes if hold == "f32" else 0)
    assert found[0][0, 0].flags.f_contiguous is (hold == "f32")
