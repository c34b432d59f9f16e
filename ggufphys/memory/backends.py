"""How does each of llama.cpp's backends round sizes, and which weights does it leave to the CPU?

A device's backend follows from its name, as llama.cpp names devices: CUDA0, MTL0, Vulkan0, RPC0[host:port]. What
differs between backends is a row of data here; a name of none of them gets `PLAIN`. Only RPC with CPU workers is
compared with llama.cpp in the tests (`proven`); the other rows are read from the source.
"""

from dataclasses import dataclass
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.gguf.ggml_types import SIZES

LARGE_BATCH: Final = 32  # GGML_OP_OFFLOAD_MIN_BATCH unless the environment says otherwise
ROW_PADDING: Final = 512  # MATRIX_ROW_PADDING of ggml-cuda/common.cuh and ggml-sycl/presets.hpp


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The facts about one backend that decide about bytes.

    `alignment` is what each tensor is padded to. With `row_padding`, the last row of a quantised tensor whose rows are
    not whole multiples of it is as if they were. `host_buffer` names pinned main memory that weights on the host go to
    unless the file is mapped; empty where the backend has none. With `maps_files` a device's weights are a stretch of
    the mapped file, like the CPU's. `pipelines` says that devices may work on different batches at a time. From
    `offloads_from` tokens in a batch on the device also runs operations on weights that lie on the host (if any are
    named in `offloads_only`, these alone); 0 for never.
    `without` are types that it does not multiply.
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


_TERNARY: Final = frozenset({GGMLType.TQ1_0, GGMLType.TQ2_0})

CPU: Final = Backend(
    prefix="CPU", alignment=32, maps_files=True, proven=True,
    source="ggml/src/ggml-backend.cpp, ggml_backend_cpu_buffer_type; ggml-impl.h, TENSOR_ALIGNMENT",
)  # fmt: skip
PLAIN: Final = Backend(prefix="", alignment=32, source="as the CPU's buffers, without mapping")


def _cuda(prefix: str) -> Backend:
    return Backend(
        prefix=prefix, alignment=128, row_padding=ROW_PADDING, host_buffer=f"{prefix}_Host", pipelines=True,
        offloads_from=LARGE_BATCH, without=_TERNARY,
        source="ggml/src/ggml-cuda/ggml-cuda.cu, ggml_backend_cuda_buffer_type_get_alloc_size, "
        "ggml_backend_cuda_device_supports_op, ggml_backend_cuda_device_offload_op",
    )  # fmt: skip


BACKENDS: Final[tuple[Backend, ...]] = (
    # The client asks the worker for the sizes of quantised rows; a worker on the CPU pads none.
    Backend(
        prefix="RPC", alignment=32, pipelines=True, proven=True,
        source="ggml/src/ggml-rpc/ggml-rpc.cpp, ggml_backend_rpc_buffer_type_get_alloc_size",
    ),
    _cuda("CUDA"),
    _cuda("ROCm"),
    _cuda("MUSA"),
    Backend(
        prefix="MTL", alignment=32, maps_files=True, pipelines=True,
        offloads_from=LARGE_BATCH, offloads_only=frozenset({"MUL_MAT", "MUL_MAT_ID"}),
        source="ggml/src/ggml-metal/ggml-metal.cpp, ggml_backend_metal_buffer_type_get_alloc_size, "
        "ggml_backend_metal_device_buffer_mapped",
    ),
    # The real alignment is the driver's minStorageBufferOffsetAlignment: 16 to 64 on common ones.
    Backend(
        prefix="Vulkan", alignment=64, host_buffer="Vulkan_Host", pipelines=True, offloads_from=LARGE_BATCH,
        source="ggml/src/ggml-vulkan/ggml-vulkan.cpp, ggml_backend_vk_buffer_type_get_alignment",
    ),
    Backend(
        prefix="SYCL", alignment=128, row_padding=ROW_PADDING, host_buffer="SYCL_Host", splits_rows=True,
        pipelines=True, offloads_from=LARGE_BATCH,
        source="ggml/src/ggml-sycl/ggml-sycl.cpp, ggml_backend_sycl_buffer_type_get_alloc_size",
    ),
)  # fmt: skip


def backend_of(device: str) -> Backend:
    """The backend of a device by llama.cpp's name for it."""
    return next((b for b in BACKENDS if device.startswith(b.prefix)), PLAIN)
