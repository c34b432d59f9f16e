"""What exactly would the file be: its header, its tensors with their types, its length?"""

from collections.abc import Mapping
from math import pi

from ggufphys.frozen import dataclass
from ggufphys.gguf.writer import TensorSpec, WriteValue, data_bytes, encode_header
from ggufphys.plan.quantize import ftype_number, parse_file_type, quantize_model, quantized_order, types_as_made
from ggufphys.plan.quantize_tables import BASE_TYPES, UNQUANTIZED
from ggufphys.synth.catalogue import RopeLlama3, Shape
from ggufphys.synth.tensors import tensor_table
from ggufphys.synth.tokenizer import tokenizer_metadata

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthPlan:
    """A file before it is written; `tensors` are in the file's order, each padded to 32 bytes in it."""

    shape: Shape
    file_type: str
    header: bytes
    tensors: tuple[TensorSpec, ...]

    @property
    def n_params(self) -> int:
        """The number of weights."""
        return sum(t.n_elements for t in self.tensors)

    @property
    def file_bytes(self) -> int:
        """The length of the file."""
        return len(self.header) + data_bytes(self.tensors)


def plan_file(shape: Shape, file_type: str = "Q4_K_M") -> SynthPlan:
    """Plan a file of the shape, typed as llama-quantize would from an F16 conversion.

    Quantised files have their tensors in llama-quantize's order, others in conversion's.

    Raises:
        ValueError: an unknown file type, or one that llama-quantize cannot give this shape.
        UnsupportedError: there is no tensor table for the shape's architecture.
    """
    file_type = parse_file_type(file_type)
    metadata = _hyperparameters(shape, file_type)
    tensors = typed_tensors(shape, file_type)
    header = encode_header({**metadata, **tokenizer_metadata(shape.n_vocab)}, tensors)
    return SynthPlan(shape=shape, file_type=file_type, header=header, tensors=tuple(tensors))


def typed_tensors(shape: Shape, file_type: str) -> list[TensorSpec]:
    """The tensor table with the types of the mix, in the order of the file. Raises what `plan_file` raises."""
    converted = tensor_table(shape)
    model = quantize_model(_hyperparameters(shape, file_type))
    types, _ = types_as_made(model, converted, file_type)
    typed = {t.name: TensorSpec(t.name, t.ne, chosen) for t, chosen in zip(converted, types, strict=True)}
    names = typed if BASE_TYPES[file_type] in UNQUANTIZED else quantized_order(typed)
    return [typed[name] for name in names]


def rope_factors(rope: RopeLlama3, *, n_rot: int, freq_base: float) -> list[float]:
    """rope_freqs.weight: what each rotary frequency is divided by, `n_rot / 2` numbers.

    Waves shorter than original_context_length / high_freq_factor stay, those longer than original_context_length /
    low_freq_factor are stretched by `factor`, those between by a blend.

    Source: llama.cpp 0c1e570 conversion/llama.py, LlamaModel.generate_extra_tensors.
    """
    factors = []
    for i in range(0, n_rot, 2):
        turns = rope.original_context_length / (2 * pi * freq_base ** (i / n_rot))  # in the original context
        blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        blend = min(1.0, max(0.0, blend))
        factors.append(1 / ((1 - blend) / rope.factor + blend))
    return factors


def _hyperparameters(shape: Shape, file_type: str) -> Mapping[str, WriteValue]:
    return {
        "general.architecture": shape.architecture,
        "general.type": "model",
        "general.name": f"{shape.name}, random weights",
        "general.description": f"The shape of {shape.source}, filled with random weights by ggufphys synth.",
        **{f"{shape.architecture}.{key}": value for key, value in shape.keys.items()},
        f"{shape.architecture}.vocab_size": shape.n_vocab,
        "general.file_type": ftype_number(file_type),
        "general.quantization_version": QUANTIZATION_VERSION,
    }
