"""SYCL, mostly Intel's GPUs."""

from typing import Final

from ggufphys.graph.devices.backends.backend import LARGE_BATCH, ROW_PADDING, Backend
from ggufphys.graph.devices.backends.cpu import pinned_as_cpu

SYCL: Final = Backend(
    prefix="SYCL", alignment=128, row_padding=ROW_PADDING, pinned=pinned_as_cpu("SYCL_Host"), splits_rows=True,
    pipelines=True, offloads_from=LARGE_BATCH,
    source="ggml/src/ggml-sycl/ggml-sycl.cpp, ggml_backend_sycl_buffer_type_get_alloc_size",
)  # fmt: skip
