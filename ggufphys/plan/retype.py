"""What would the file be after llama-quantize, before anybody has run it? The same model with other tensor types.

Source: llama.cpp 0c1e570 src/llama-quant.cpp, llama_model_quantize_impl (order, padding, keys set and removed);
ggml/src/gguf.cpp, gguf_writer_base (the bytes of a header).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ggufphys.frozen import replace
from ggufphys.gguf import SIZES, GGMLType, GGUFFile, TensorInfo
from ggufphys.gguf.reader import DEFAULT_ALIGNMENT, NEWEST_VERSION, Header, padded
from ggufphys.gguf.split import SHARD_NAME, Shard
from ggufphys.gguf.values import Value, ValueType
from ggufphys.plan.quantize import ftype_number, quantized_order
from ggufphys.plan.quantize_tables import COPY

FILE_TYPE: Final = "general.file_type"
VERSION: Final = "general.quantization_version"
QUANTIZATION_VERSION: Final = 2  # GGML_QNT_VERSION
# Bytes of the values that llama-gguf-split writes; llama-quantize makes one file and drops them.
SPLIT_KEYS: Final[Mapping[str, int]] = {"split.no": 2, "split.count": 2, "split.tensors.count": 4}


def retyped(gguf: GGUFFile, types: Sequence[GGMLType], file_type: str) -> GGUFFile:
    """The file that llama-quantize would make, all shards in one, with `types` for `gguf.tensors` in their order.

    Its header is as it would be read back: tensors in llama-quantize's order, each padded to 32 bytes, offsets and
    `file_bytes` the real ones. There is no data behind it. Arrays of the metadata are read from `gguf`, which must stay
    open.
    """
    typed = {t.name: _retyped(t, chosen) for t, chosen in zip(gguf.tensors, types, strict=True)}
    tensors, end = [], 0
    for name in quantized_order(typed):
        tensors.append(replace(typed[name], offset=end, shard=0))
        end += padded(typed[name].nbytes or 0)
    first = gguf.shards[0].header
    table_offset = first.table_offset + _metadata_growth(first.metadata)
    data_offset = padded(table_offset + _table_bytes(tensors))
    metadata = {key: value for key, value in first.metadata.items() if key not in SPLIT_KEYS}
    value_types = {key: kind for key, kind in first.value_types.items() if key not in SPLIT_KEYS}
    header = Header(
        version=NEWEST_VERSION,
        byte_order="little",
        alignment=DEFAULT_ALIGNMENT,
        metadata={**metadata, VERSION: QUANTIZATION_VERSION, **_file_type(file_type)},
        value_types={**value_types, VERSION: ValueType.UINT32, FILE_TYPE: ValueType.UINT32},
        tensors=tuple(tensors),
        table_offset=table_offset,
        data_offset=data_offset,
    )
    shard = re.fullmatch(SHARD_NAME, gguf.path.name)
    path = str(gguf.path.with_name(f"{shard['stem'] if shard else gguf.path.stem}-{file_type}.gguf"))
    return GGUFFile(file=path, shards=(Shard(file=path, file_bytes=data_offset + end, header=header, buffer=b""),))


def _file_type(file_type: str) -> dict[str, int]:
    """A copy says what it was before; where nothing said it, llama.cpp writes a guess."""
    return {} if file_type == COPY else {FILE_TYPE: ftype_number(file_type)}


def _retyped(tensor: TensorInfo, ggml_type: GGMLType) -> TensorInfo:
    size = SIZES[ggml_type]
    n_dims = max([1, *(i for i, n in enumerate(tensor.ne, 1) if n > 1)])  # trailing ones are not written
    nbytes = tensor.n_elements // size.block_size * size.type_size
    return replace(tensor, ne=tensor.ne[:n_dims], ggml_type=ggml_type, nbytes=nbytes)


def _metadata_growth(metadata: Mapping[str, Value]) -> int:
    """Bytes that the metadata grows by: the two keys that are set, less the split keys."""
    added = sum(_entry_bytes(key, 4) for key in (VERSION, FILE_TYPE) if key not in metadata)
    return added - sum(_entry_bytes(key, nbytes) for key, nbytes in SPLIT_KEYS.items() if key in metadata)


def _entry_bytes(key: str, value_bytes: int) -> int:
    return 8 + len(key) + 4 + value_bytes


def _table_bytes(tensors: Iterable[TensorInfo]) -> int:
    """Bytes of the tensor table: for each its name, dimensions, type and offset."""
    return sum(8 + len(t.name.encode()) + 4 + 8 * len(t.ne) + 4 + 8 for t in tensors)
