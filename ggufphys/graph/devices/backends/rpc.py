"""Workers on other machines: the client asks them for the sizes of quantised rows; a worker on the CPU pads none."""

from typing import Final

from ggufphys.graph.devices.backends.backend import Backend

RPC: Final = Backend(
    prefix="RPC", alignment=32, pipelines=True, proven=True,
    source="ggml/src/ggml-rpc/ggml-rpc.cpp, ggml_backend_rpc_buffer_type_get_alloc_size",
)  # fmt: skip
