"""Main memory, and devices whose backend is not known."""

from typing import Final

from ggufphys.frozen import replace
from ggufphys.graph.devices.backends.backend import Backend

CPU: Final = Backend(
    prefix="CPU", alignment=32, maps_files=True, proven=True,
    source="ggml/src/ggml-backend.cpp, ggml_backend_cpu_buffer_type; ggml-impl.h, TENSOR_ALIGNMENT",
)  # fmt: skip
PLAIN: Final = Backend(prefix="", alignment=32, source="as the CPU's buffers, without mapping")


def pinned_as_cpu(name: str) -> Backend:
    """Pinned main memory whose buffers of that name are otherwise as the CPU's."""
    return replace(CPU, prefix=name, maps_files=False)
