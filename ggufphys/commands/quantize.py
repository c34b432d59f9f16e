"""`ggufphys inspect MODEL --quantize TYPES`: llama-quantize's flags, and its answer without its work."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.params import Params
from ggufphys.plan.quantize import QuantizeOptions, parse_tensor_type
from ggufphys.plan.quantized import QuantizedFile, parse_file_types, quantized_files
from ggufphys.report.inspection import Section
from ggufphys.report.quantized import quantized_section


def quantized_sections(args: argparse.Namespace, gguf: GGUFFile, params: Params) -> tuple[Section, ...]:
    """The answer to --quantize.

    Raises:
        ValueError: an unknown type, or llama-quantize would refuse.
        UnsupportedError, GGUFError: see `quantized_files`.
    """
    return (quantized_section(gguf, quantizing(args, params)(gguf)),)


def quantizing(args: argparse.Namespace, params: Params) -> Callable[[GGUFFile], Sequence[QuantizedFile]]:
    """How --quantize is answered for a file.

    Raises:
        ValueError: an unknown type.
    """
    return partial(quantized_files, file_types=parse_file_types(args.quantize), params=params, options=_options(args))


def _options(args: argparse.Namespace) -> QuantizeOptions:
    return QuantizeOptions(
        has_imatrix=args.imatrix is not None,
        allow_requantize=args.allow_requantize,
        leave_output_tensor=args.leave_output_tensor,
        pure=args.pure,
        output_tensor_type=args.output_tensor_type and parse_tensor_type(args.output_tensor_type),
        token_embedding_type=args.token_embedding_type and parse_tensor_type(args.token_embedding_type),
        tensor_types=tuple(map(_tensor_type, args.tensor_type or ())),
    )


def _tensor_type(text: str) -> tuple[str, GGMLType]:
    pattern, equals, ggml_type = text.partition("=")
    if not (pattern and equals and ggml_type):
        raise ValueError(f"--tensor-type {text!r}: expected PATTERN=TYPE, such as attn_q=q8_0")
    return pattern.lower(), parse_tensor_type(ggml_type)  # llama-quantize puts the pattern into lower case
