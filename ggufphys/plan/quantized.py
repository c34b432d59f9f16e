"""What would this file weigh, and cost in memory, as each of llama-quantize's file types?"""

from collections import Counter
from collections.abc import Iterable

from ggufphys.errors import UnsupportedError
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile
from ggufphys.graph.devices.runs import require_model
from ggufphys.loads import RefusedError
from ggufphys.memory.predict import predict_memory, predict_weights
from ggufphys.memory.terms import total
from ggufphys.params import Params
from ggufphys.plan.quantize import (
    QuantizeModel,
    QuantizeOptions,
    check_conversions,
    parse_file_type,
    quantize_model,
    types_as_made,
)
from ggufphys.plan.quantize_tables import BASE_TYPES
from ggufphys.plan.retype import retyped

ALL = "all"
PLANNED_KINDS = ("model", "mmproj")  # what llama-quantize knows the architecture of


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedFile:
    """A file that llama-quantize would write. `refused` says why it would not, all figures are then None.

    `tensor_bytes` are those of the tensors, `file_bytes` the file's with header and padding. With `needs_imatrix`
    llama-quantize insists on an importance matrix, and the types are those it chooses with one (it then may add keys on
    the matrix to the file). `types` counts the tensors of each type. Memory is that of the run asked for; None where it
    cannot be predicted.
    """

    file_type: str
    tensor_bytes: int | None = None
    bpw: float | None = None
    file_bytes: int | None = None
    needs_imatrix: bool | None = None
    types: dict[str, int] | None = None
    model_bytes: int | None = None
    total_bytes: int | None = None
    process_bytes: int | None = None
    refused: str | None = None


def parse_file_types(text: str) -> list[str]:
    """A list of file types with commas between them, or `all`; each once, in the order given.

    Raises:
        ValueError: llama-quantize knows no such file type.
    """
    if text.lower() == ALL:
        return list(BASE_TYPES)
    return list(dict.fromkeys(parse_file_type(part.strip()) for part in text.split(",")))


def quantized_files(
    gguf: GGUFFile, file_types: Iterable[str], params: Params, options: QuantizeOptions
) -> list[QuantizedFile]:
    """A row for each file type.

    Raises:
        UnsupportedError: the file is nothing that llama-quantize takes.
        GGUFError: a key is missing without which its choice is not defined.
        ValueError: it would refuse all of them; the message is its reason for the first.
    """
    if gguf.kind not in PLANNED_KINDS:
        raise UnsupportedError(f"{gguf.location}: llama-quantize takes models, not a GGUF of kind {gguf.kind!r}")
    model = quantize_model(gguf.metadata)
    rows = [_quantized_file(gguf, model, file_type, params, options) for file_type in file_types]
    if rows and all(row.refused for row in rows):
        raise ValueError(rows[0].refused)
    return rows


def _quantized_file(
    gguf: GGUFFile, model: QuantizeModel, file_type: str, params: Params, options: QuantizeOptions
) -> QuantizedFile:
    try:
        types, insists = types_as_made(model, gguf.tensors, file_type, options)
        check_conversions(gguf.tensors, types, options)
    except ValueError as error:
        return QuantizedFile(file_type=file_type, refused=str(error))
    made = retyped(gguf, types, file_type)
    model_bytes, total_bytes, process_bytes = _memory(made, params)
    return QuantizedFile(
        file_type=file_type,
        tensor_bytes=made.tensor_bytes,
        bpw=made.bpw,
        file_bytes=made.file_bytes,
        needs_imatrix=insists,
        types=dict(Counter(chosen.name for chosen in types).most_common()),
        model_bytes=model_bytes,
        total_bytes=total_bytes,
        process_bytes=process_bytes,
    )


def _memory(gguf: GGUFFile, params: Params) -> tuple[int | None, int | None, int | None]:
    """model_bytes, total_bytes and process_bytes, as far as they can be predicted."""
    try:
        require_model(gguf)
    except UnsupportedError:
        return None, None, None
    try:
        prediction = predict_memory(gguf, params)
    except (UnsupportedError, RefusedError):
        return total(predict_weights(gguf, params), "model"), None, None
    return prediction.model_bytes, prediction.total_bytes, prediction.process_bytes
