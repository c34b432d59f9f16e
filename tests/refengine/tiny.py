"""The small models of `tests.archs` with random weights, of the size that models are initialised with.

What a layer adds is then small beside what it adds to. That matters: wherever activations are rounded (to F16, to
blocks, to the arguments of a table) two computations whose sums differ in F32's last bit differ by a rounding now and
then, and layers that only pass on their own output would amplify that to the size of the rounding itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from bench.synth.blocks import random_blocks
from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.gguf.reader import padded
from ggufphys.gguf.writer import TensorSpec, WriteValue, encode_header
from refengine.blocks import BLOCKS, F32
from tests import archs, scales

GAIN: Final = 0.3  # 0.3 / sqrt(256) is about 0.02
N_EXPERT: Final = 4  # of all these models

NVFP4_SCALES: Final = 1, 3  # bytes that stand for 1/512 and 1/256: matrices are small with and without their scale

TypeOf = Callable[[TensorSpec], GGMLType]


def all_f32(tensor: TensorSpec) -> GGMLType:
    """Everything in F32."""
    return GGMLType.F32


def q8_0(tensor: TensorSpec) -> GGMLType:
    """Matrices in Q8_0, but for those whose rows are no whole blocks of 32."""
    is_matrix = tensor.ggml_type is not GGMLType.F32
    return GGMLType.Q8_0 if is_matrix and tensor.ne[0] % 32 == 0 else GGMLType.F32


def q4_k_m(tensor: TensorSpec) -> GGMLType:
    """Matrices in Q4_K, some in Q6_K as in that mix; those whose rows are no whole blocks of 256 in Q5_0."""
    if q8_0(tensor) is GGMLType.F32:
        return GGMLType.F32
    if tensor.ne[0] % 256:
        return GGMLType.Q5_0
    return GGMLType.Q6_K if any(part in tensor.name for part in ("attn_v", "ffn_down", "output.")) else GGMLType.Q4_K


def q5_1(tensor: TensorSpec) -> GGMLType:
    """Matrices in Q5_1, experts in Q4_1: types whose blocks have a minimum."""
    if q8_0(tensor) is GGMLType.F32:
        return GGMLType.F32
    return GGMLType.Q4_1 if "exps" in tensor.name else GGMLType.Q5_1


def nvfp4(tensor: TensorSpec) -> GGMLType:
    """Matrices in NVFP4, those for which llama.cpp knows scales; the others in Q8_0."""
    is_known = scales.SCALED.fullmatch(tensor.name) is not None and tensor.ne[0] % 64 == 0
    return GGMLType.NVFP4 if is_known else q8_0(tensor)


def write(
    path: Path,
    name: str,
    type_of: TypeOf = all_f32,
    *,
    gain: float = GAIN,
    metadata: Mapping[str, WriteValue] = MappingProxyType({}),
    beside: Sequence[TensorSpec] = (),
) -> Path:
    """The model of that name as a file; `gain` is what a matrix makes of the size of what it is multiplied with.

    `metadata` and the tensors `beside` are added to its own.
    """
    tensors = [*archs.records()[name].tensors, *beside]
    specs = [t if t.ggml_type is GGMLType.I32 else replace_type(t, type_of(t)) for t in tensors]
    named = {spec.name for spec in specs}
    specs += [
        TensorSpec(scale, spec.ne[2:3] or (1,), GGMLType.F32)
        for spec in specs
        if spec.ggml_type is GGMLType.NVFP4
        and not spec.name.startswith(scales.of_head(name))
        and (scale := scales.beside(name, spec.name, named))
    ]
    with path.open("wb") as file:
        file.write(encode_header({**archs.models()[name].metadata, **metadata}, specs))
        for i, spec in enumerate(specs):
            raw = _data(spec, np.random.default_rng(i), gain)
            assert len(raw) == spec.nbytes
            file.write(raw + bytes(padded(len(raw)) - len(raw)))
    return path


def replace_type(tensor: TensorSpec, ggml_type: GGMLType) -> TensorSpec:
    """The same tensor in another type."""
    return replace(tensor, ggml_type=ggml_type)


def _data(spec: TensorSpec, rng: np.random.Generator, gain: float) -> bytes:
    if spec.ggml_type is GGMLType.F32:
        return values(spec, rng, gain).astype("<f4").tobytes()
    if spec.ggml_type is GGMLType.I32:  # the experts of each token
        first = rng.integers(0, N_EXPERT, spec.ne[1])
        return ((first[:, np.newaxis] + np.arange(spec.ne[0])) % N_EXPERT).astype("<i4").tobytes()
    n_blocks = spec.n_elements // SIZES[spec.ggml_type].block_size
    if spec.ggml_type is GGMLType.NVFP4:
        blocks = np.zeros(n_blocks, BLOCKS[spec.ggml_type])
        blocks["d"] = rng.integers(*NVFP4_SCALES, blocks["d"].shape)
        blocks["qs"] = rng.integers(0, 256, blocks["qs"].shape)
        return blocks.tobytes()
    return random_blocks(spec.ggml_type, n_blocks, rng, _deviation(spec, gain)).tobytes()


def values(spec: TensorSpec, rng: np.random.Generator, gain: float) -> F32:
    """Random weights of the size that their place asks for."""

    def normal() -> F32:
        return rng.standard_normal(spec.n_elements, dtype=np.float32)

    name = spec.name
    if name.endswith("ssm_a") or name.endswith("ssm_a.weight"):
        decay: F32 = -np.exp(0.3 * normal())
        return decay
    if "rope_f" in name:
        return 1 + np.abs(normal())
    if "post_" in name and "norm" in name:
        return gain / 6 * (1 + 0.2 * normal())  # of what a layer adds
    if scales.SCALED.fullmatch(name.replace(".scale", ".weight")) and name.endswith(".scale"):
        return 6 * gain * (1 + 0.2 * normal())
    if ("norm" in name and name.endswith("weight")) or name.endswith((".scale", "ssm_d")):
        return 1 + 0.2 * normal()
    if name.endswith((".bias", "sinks.weight")) or len(spec.ne) == 1:
        return 0.2 * normal()
    return normal() * np.float32(_deviation(spec, gain))


def _deviation(spec: TensorSpec, gain: float) -> float:
    return 1.0 if spec.name == "token_embd.weight" else gain * float(spec.ne[0] ** -0.5)
