"""What ggml's CPU backend makes of activations: C as the oracle."""

import numpy as np
import pytest

from ggufphys import UnsupportedError
from ggufphys.gguf import SIZES, GGMLType
from refengine import dequantize, quantize, quantize_activations, round_activations
from refengine.blocks import BLOCKS
from refengine.dequant.table import FORMATS
from refengine.peers import ggml
from refengine.quant.activations import VEC_DOT_TYPES
from tests.refengine.quant.values import value_samples

ACTIVATIONS = list(dict.fromkeys(VEC_DOT_TYPES.values()))


@pytest.mark.parametrize("ggml_type", ACTIVATIONS, ids=lambda t: t.name)
def test_equals_the_function_that_is_called(ggml_type: GGMLType) -> None:
    """Bit for bit what the function in the CPU backend's own table makes of every sort of finite values."""
    for name, x in value_samples(2000, seed=3):
        ours, theirs = quantize_activations(ggml_type, x), ggml.quantize_on_cpu(ggml_type, x)

        assert ours.tobytes() == theirs.tobytes(), name


def test_is_not_the_reference() -> None:
    """Q8_0 on a CPU with SIMD code rounds some values otherwise than the reference: the test above could fail."""
    different = {
        name: (quantize_activations(GGMLType.Q8_0, x) != quantize(GGMLType.Q8_0, x)).any()
        for name, x in value_samples(2000, seed=3)
    }

    assert different["ties"]
    assert different["normal"]


@pytest.mark.parametrize("weight_type", GGMLType, ids=lambda t: t.name)
def test_vec_dot_types(weight_type: GGMLType) -> None:
    """The table of activations' types is the CPU backend's; of types without a dot product, it has none."""
    assert VEC_DOT_TYPES.get(weight_type, 0) == (ggml.vec_dot_type(weight_type) if weight_type in VEC_DOT_TYPES else 0)
    assert weight_type in VEC_DOT_TYPES or weight_type not in FORMATS or weight_type is GGMLType.Q8_K


@pytest.mark.parametrize("weight_type", [GGMLType.F32, GGMLType.BF16, GGMLType.Q8_0, GGMLType.Q4_1, GGMLType.IQ3_S])
def test_round_activations(weight_type: GGMLType) -> None:
    """The values of the blocks, in the shape given."""
    x = np.random.default_rng(0).standard_normal((2, 3, 512)).astype(np.float32)
    vec_dot_type = VEC_DOT_TYPES[weight_type]
    raw = ggml.quantize_on_cpu(vec_dot_type, x)
    if vec_dot_type is GGMLType.Q8_1:
        blocks = raw.view(BLOCKS[vec_dot_type])
        expected = blocks["d"].astype(np.float32)[:, np.newaxis] * blocks["qs"]
    else:
        expected = dequantize(vec_dot_type, raw)

    assert round_activations(weight_type, x).tobytes() == expected.tobytes()
    assert round_activations(weight_type, x).shape == x.shape


def test_sum_of_q8_1() -> None:
    """Q8_1's s is the sum of the numbers times the float scale, rounded to a half."""
    x = np.random.default_rng(0).standard_normal(320).astype(np.float32)
    blocks = quantize_activations(GGMLType.Q8_1, x).view(BLOCKS[GGMLType.Q8_1])
    d = np.abs(x.reshape(-1, 32)).max(axis=1) / np.float32(127)

    assert blocks["s"].tolist() == (d * blocks["qs"].sum(axis=1, dtype=np.float32)).astype(np.float16).tolist()


def test_other_processors() -> None:
    """ARM's rule divides by the rounded scale; a processor that is not known is refused by name."""
    x = dict(value_samples(2000, seed=3))["ties"]
    x86, arm = (quantize_activations(GGMLType.Q8_0, x, machine=m) for m in ("x86_64", "aarch64"))

    assert (x86 != arm).any()
    assert (x86.view(np.int8).astype(int) - arm.view(np.int8)).reshape(-1, SIZES[GGMLType.Q8_0].type_size).max() <= 1
    with pytest.raises(UnsupportedError, match="on 's390x' is not known; known are x86_64, "):
        quantize_activations(GGMLType.Q8_0, x, machine="s390x")


def test_refusals() -> None:
    """Types that no weights have, and types that activations are never converted to, are refused with a list."""
    with pytest.raises(UnsupportedError, match=r"no weights of type number 24; it does of F32, "):
        round_activations(GGMLType.I8, np.zeros(32, np.float32))
    with pytest.raises(
        UnsupportedError, match=r"can't quantise to Q4_K; supported are F32, F16, BF16, Q8_0, Q8_1, Q8_K"
    ):
        quantize_activations(GGMLType.Q4_K, np.zeros(256, np.float32))
