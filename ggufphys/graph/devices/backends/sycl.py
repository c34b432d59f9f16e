"""SYCL, mostly Intel's GPUs."""

from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.graph.devices.backends.attends import sycl_has
from ggufphys.graph.devices.backends.backend import LARGE_BATCH, ROW_PADDING, Backend
from ggufphys.graph.devices.backends.cpu import pinned_as_cpu
from ggufphys.graph.devices.backends.scratch import SYCL_SCRATCH

SYCL: Final = Backend(
    prefix="SYCL", alignment=128, row_padding=ROW_PADDING, pinned=pinned_as_cpu("SYCL_Host"), splits_rows=True,
    pipelines=True, offloads_from=LARGE_BATCH, without=frozenset({GGMLType.TQ1_0, GGMLType.TQ2_0}),
    supports=sycl_has, scratch=SYCL_SCRATCH,
    source="ggml/src/ggml-sycl/ggml-sycl.cpp, ggml_backend_sycl_buffer_type_get_alloc_size, "
    "do_ggml_backend_sycl_device_supports_op",
)  # fmt: skip
