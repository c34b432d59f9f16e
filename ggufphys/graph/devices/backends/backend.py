"""What about a backend decides about bytes?"""

from dataclasses import dataclass
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES

LARGE_BATCH: Final = 32  # GGML_OP_OFFLOAD_MIN_BATCH unless the environment says otherwise
ROW_PADDING: Final = 512  # MATRIX_ROW_PADDING of ggml-cuda/common.cuh and ggml-sycl/presets.hpp


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The facts about one backend.

    `alignment` is what each tensor is padded to. With `row_padding`, the last row of a quantised tensor whose rows are
    not whole multiples of it is as if they were. `host_buffer` names pinned main memory that weights on the host go to
    unless the file is mapped; empty where the backend has none. With `maps_files` a device's weights are a stretch of
    the mapped file, like the CPU's. `pipelines` says that devices may work on different batches at a time. From
    `offloads_from` tokens in a batch on the device also runs operations on weights that lie on the host (if any are
    named in `offloads_only`, these alone); 0 for never. `without` are types that it does not multiply. `proven` ones
    are compared with llama.cpp in the tests; the others are read from the source.
    """

    prefix: str
    alignment: int
    row_padding: int = 0
    host_buffer: str = ""
    maps_files: bool = False
    splits_rows: bool = False
    pipelines: bool = False
    offloads_from: int = 0
    offloads_only: frozenset[str] = frozenset()
    without: frozenset[GGMLType] = frozenset()
    proven: bool = False
    source: str

    def tensor_bytes(self, nbytes: int, ggml_type: GGMLType | int, ne0: int) -> int:
        """Bytes of a tensor in a buffer of this backend: `nbytes` of data in rows of `ne0` elements, padded."""
        size = SIZES.get(ggml_type) if isinstance(ggml_type, GGMLType) else None
        if self.row_padding and size is not None and size.block_size > 1 and ne0 % self.row_padding:
            nbytes += (self.row_padding - ne0 % self.row_padding) * size.type_size // size.block_size
        return -(-nbytes // self.alignment) * self.alignment
