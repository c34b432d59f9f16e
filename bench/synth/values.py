"""What do the weights hold that no N(0, σ) may fill: norms, a recurrence's decay, rotary factors?

Each is drawn as its architecture initialises it, so that states neither explode nor die.
"""

import numpy as np
import numpy.typing as npt

from ggufphys.synth.catalogue import Shape
from ggufphys.synth.plan import rope_factors

F32 = npt.NDArray[np.float32]


def special_values(shape: Shape, name: str, n: int, rng: np.random.Generator) -> F32 | None:
    """`(n,)` values of a tensor with a meaning of its own, or None for one that any small numbers will do for."""
    part = name.split(".", 2)[2] if name.startswith("blk.") else name
    if part.endswith("_norm.weight"):
        return (1 + 0.05 * rng.standard_normal(n)).astype(np.float32)
    match part:
        case "rope_freqs.weight":
            assert shape.rope_llama3 is not None, "the tensor is in the table because the shape has the factors"
            freq_base = shape.real("rope.freq_base", 10000.0)
            factors = rope_factors(shape.rope_llama3, n_rot=2 * n, freq_base=freq_base)
            return np.array(factors, np.float32)
        case "attn_sinks.weight":
            return rng.standard_normal(n).astype(np.float32)
        case "ssm_a":  # −exp(A_log), A uniform in [1, 16]
            return -rng.uniform(1, 16, n).astype(np.float32)
        case "ssm_d":
            return np.ones(n, np.float32)
        case "ssm_dt.bias":  # softplus of it is log-uniform in [0.001, 0.1]
            dt = np.exp(rng.uniform(np.log(0.001), np.log(0.1), n))
            return np.log(np.expm1(dt)).astype(np.float32)
        case "ssm_conv1d.weight":  # uniform within ±1/√kernel
            bound = shape.number("ssm.conv_kernel") ** -0.5
            return rng.uniform(-bound, bound, n).astype(np.float32)
    return None
