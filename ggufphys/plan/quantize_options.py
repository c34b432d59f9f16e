"""What can llama-quantize be told beside the file type? The options that decide about types, under its names.

Source: llama.cpp 0c1e570 tools/quantize/quantize.cpp (flags); ggml/src/ggml.c, ggml_quantize_chunk (types it makes).
"""

from typing import Final, Self

from ggufphys.frozen import dataclass, replace
from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.patterns.ecmascript import searcher
from ggufphys.plan.quantize_tables import BASE_TYPES

# All but Q8_1, Q8_K, integers and doubles.
_TARGETS: Final = {t.name: t for t in (*BASE_TYPES.values(), GGMLType.NVFP4, GGMLType.IQ2_S, GGMLType.IQ3_XXS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """llama-quantize's options that decide about types, under its names; `tensor_types` are its `--tensor-type`.

    Of `tensor_types`, pairs of a pattern searched in names and a type, the first match decides.
    """

    has_imatrix: bool = False
    allow_requantize: bool = False
    leave_output_tensor: bool = False
    pure: bool = False
    output_tensor_type: GGMLType | None = None
    token_embedding_type: GGMLType | None = None
    tensor_types: tuple[tuple[str, GGMLType], ...] = ()

    def __post_init__(self) -> None:
        for pattern, _ in self.tensor_types:
            try:
                searcher(pattern)
            except ValueError as error:
                raise ValueError(f"--tensor-type: {error}") from None

    def named_type(self, name: str) -> GGMLType | None:
        """The type that the first matching pattern gives a tensor."""
        return next((ggml_type for pattern, ggml_type in self.tensor_types if searcher(pattern)(name)), None)

    def with_imatrix(self) -> Self:
        """These options with an importance matrix."""
        return replace(self, has_imatrix=True)


def parse_tensor_type(text: str) -> GGMLType:
    """A tensor's type by ggml's name, in any case (`q4_K` gives `Q4_K`).

    Raises:
        ValueError: ggml quantises to no such type; the message lists those it knows.
    """
    try:
        return _TARGETS[text.upper()]
    except KeyError:
        raise ValueError(f"no type that ggml quantises to: {text!r} (expected one of {', '.join(_TARGETS)})") from None
