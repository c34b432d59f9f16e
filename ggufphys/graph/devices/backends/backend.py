"""What about a backend decides about bytes?"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from ggufphys.frozen import dataclass
from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.graph.ir import Tensor

if TYPE_CHECKING:
    from ggufphys.graph.devices.backends.order import Reorder

LARGE_BATCH: Final = 32  # GGML_OP_OFFLOAD_MIN_BATCH unless the environment says otherwise
ROW_PADDING: Final = 512  # MATRIX_ROW_PADDING of ggml-cuda/common.cuh and ggml-sycl/presets.hpp
UNLIMITED: Final = 1 << 62


Scratch = Mapping[str, Callable[[Tensor], int]]


def everything(_: Tensor) -> bool:
    """Supports all operations."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The facts about one backend; where a device's limits count, those that follow from them.

    `alignment` is what each tensor is padded to, `max_buffer_bytes` how large a buffer may be; each buffer has
    `more_bytes` than are asked for. With `row_padding`, the last row of a quantised tensor whose rows are not whole
    multiples of it is as if they were. `pinned` are the rules of main memory that the device reads itself: the host
    computes there, and weights on the host go there unless the file is mapped; None where the backend has none. With
    `maps_files` a device's weights are a stretch of the mapped file, like the CPU's.

    It has the operations that it `supports`, runs them on no tensor above `max_tensor_bytes`, and may `reorder` what it
    is given to run; `scratch` says by operation how many bytes it adds to a node's in the compute buffer. `pipelines`
    says that devices may work on different batches at a time. From `offloads_from` tokens in a batch on the device also
    runs operations on weights that lie on the host (if any are named in `offloads_only`, these alone); 0 for never.
    `without` are types that it does not multiply. `proven` ones are compared with llama.cpp in the tests; the others
    are read from the source.
    """

    prefix: str
    alignment: int
    max_buffer_bytes: int = UNLIMITED
    max_tensor_bytes: int = UNLIMITED
    more_bytes: int = 0
    row_padding: int = 0
    pinned: "Backend | None" = None
    supports: Callable[[Tensor], bool] = everything
    reorder: "Reorder | None" = None
    scratch: Scratch | None = None
    maps_files: bool = False
    splits_rows: bool = False
    pipelines: bool = False
    offloads_from: int = 0
    offloads_only: frozenset[str] = frozenset()
    without: frozenset[GGMLType] = frozenset()
    proven: bool = False
    source: str

    def exceeds(self, node: Tensor) -> bool:
        """Is a tensor of this node too large for it?"""
        return any(tensor.nbytes > self.max_tensor_bytes for tensor in (node, *node.src))

    def runs(self, node: Tensor) -> bool:
        """Does it have the operation, and are its tensors not too large?"""
        return self.supports(node) and not self.exceeds(node)

    def padded(self, ne0: int, ggml_type: GGMLType | int) -> int:
        """As how many elements the last row of a tensor counts."""
        size = SIZES.get(ggml_type) if isinstance(ggml_type, GGMLType) else None
        is_padded = self.row_padding and size is not None and size.block_size > 1
        return -(-ne0 // self.row_padding) * self.row_padding if is_padded else ne0

    def tensor_bytes(self, nbytes: int, ggml_type: GGMLType | int, ne0: int) -> int:
        """Bytes of a tensor in a buffer of this backend: `nbytes` of data in rows of `ne0` elements, padded."""
        if more := self.padded(ne0, ggml_type) - ne0:
            size = SIZES[GGMLType(ggml_type)]
            nbytes += more * size.type_size // size.block_size
        return -(-nbytes // self.alignment) * self.alignment
