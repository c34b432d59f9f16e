"""Which weights does a llama.cpp with AMX kernels keep in their layout, and how large are they there?

AMX stands before the repacked layouts in llama.cpp's list, so it takes what it can multiply; experts it cannot. Whether
a build has the kernels is no property of the CPU alone: `Params.use_amx` says so.

Source: llama.cpp 0c1e570 ggml/src/ggml-cpu/amx/amx.cpp, extra_buffer_type::supports_op; amx/mmq.cpp, get_row_size,
ggml_backend_amx_get_alloc_size; ggml-cpu.cpp, ggml_backend_cpu_get_extra_buffer_types.
"""

from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf import GGMLType, TensorInfo
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.graph.devices.backends.repack import is_multiplied

ROWS: Final = 32  # the product's width comes in whole pairs of tiles: 2 * TILE_N


@dataclass(frozen=True, slots=True)
class AmxLayout:
    """A type that AMX multiplies: rows are multiples of `columns`, and each of its blocks takes `extra_bytes` more."""

    columns: int
    extra_bytes: int = 0


# fmt: off
AMX_LAYOUTS: Final[dict[GGMLType, AmxLayout]] = {
    GGMLType.F16:    AmxLayout(16),
    GGMLType.Q4_0:   AmxLayout(32),
    GGMLType.Q4_1:   AmxLayout(32),
    GGMLType.Q8_0:   AmxLayout(32, 4),   # a sum of 32 bits that undoes the shift to unsigned
    GGMLType.Q4_K:   AmxLayout(256, 4),  # scales unpacked to a byte each
    GGMLType.Q5_K:   AmxLayout(256, 4),
    GGMLType.Q6_K:   AmxLayout(256),
    GGMLType.IQ4_XS: AmxLayout(256, 2),
}
# fmt: on


def is_amx(tensor: TensorInfo, *, as_output: bool = False) -> bool:
    """Does an AMX build keep this tensor in AMX's layout? `as_output`: the embedding as the output matrix."""
    layout = AMX_LAYOUTS.get(GGMLType(tensor.ggml_type)) if tensor.ggml_type in AMX_LAYOUTS else None
    if layout is None or len(tensor.ne) < 2 or tensor.ne[0] % layout.columns or tensor.ne[1] % ROWS:
        return False
    return is_multiplied(tensor, as_output=as_output)


def amx_bytes(tensor: TensorInfo) -> int:
    """Bytes of the tensor in AMX's layout; of a tensor of three dimensions llama.cpp counts the first matrix alone."""
    ggml_type = GGMLType(tensor.ggml_type)
    size, layout = SIZES[ggml_type], AMX_LAYOUTS[ggml_type]
    if ggml_type is GGMLType.F16:  # not packed
        return tensor.nbytes or 0
    return tensor.ne[1] * (tensor.ne[0] // size.block_size) * (size.type_size + layout.extra_bytes)
