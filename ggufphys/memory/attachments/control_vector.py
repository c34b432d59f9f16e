"""How many bytes does a control vector take? One direction for each layer but the first, added to its output.

llama.cpp allocates for the model's layers whatever the file holds: several vectors are summed before they get there,
and none are kept apart. The addition works in place, so the compute buffer does not grow.

Source: llama.cpp 0c1e570 src/llama-adapter.cpp, llama_adapter_cvec::init; common/common.cpp,
common_control_vector_load.
"""

import re
from collections import Counter
from typing import Final

from ggufphys.errors import GGUFError
from ggufphys.gguf import GGMLType, GGUFFile
from ggufphys.graph.devices.backends import CPU
from ggufphys.graph.devices.placed import Placement
from ggufphys.hparams.hparams import HParams
from ggufphys.loads.attached import require_attached
from ggufphys.memory.terms import Term
from ggufphys.params import CPU_BUFFER, HOST

_PREFIX: Final = "direction."
_NUMBER: Final = re.compile(r"direction\.\s*\+?(\d{1,10})")  # std::stoi reads a number, and nothing behind it
_F32_BYTES: Final = 4


def check_control_vector(vector: GGUFFile, h: HParams) -> None:
    """Refuse a file that llama.cpp refuses for this model.

    Raises:
        GGUFError: a direction has another type, shape or number than llama.cpp reads.
        ValueError: the file is no control vector, or its directions are not as wide as the model.
    """
    if not any(t.name.startswith(_PREFIX) for t in vector.tensors):
        raise ValueError(f"{vector.location}: a GGUF of kind {vector.kind!r}, expected a control vector")
    require_attached(vector)
    for tensor in vector.tensors:
        number = _NUMBER.match(tensor.name)
        if number is None or not 0 < int(number[1]) < 1 << 31:
            raise GGUFError(f"{vector.location}: tensor {tensor.name!r}: expected direction.1, direction.2, ...")
        if tensor.ggml_type is not GGMLType.F32 or any(n > 1 for n in tensor.ne[1:]):
            raise GGUFError(
                f"{vector.location}: tensor {tensor.name!r} is {tensor.type_name} of shape {tensor.ne}, expected F32 "
                "with one dimension"
            )
        if tensor.n_elements != h.n_embd:
            raise ValueError(
                f"{vector.location}: directions have {tensor.n_elements} elements, the model's n_embd is {h.n_embd}"
            )


def control_vector_terms(h: HParams, placement: Placement) -> tuple[Term, ...]:
    """Terms of attachment_bytes, one for each device that has layers."""
    homes = Counter(placement.layers[il] for il in range(1, h.n_layer))
    terms = []
    for device, n_layers in homes.items():
        backend = placement.backends.get(device, CPU)
        terms.append(
            Term(
                quantity="attachment",
                name="control vector",
                nbytes=n_layers * backend.tensor_bytes(h.n_embd * _F32_BYTES, GGMLType.F32, h.n_embd),
                buffer=CPU_BUFFER if device == HOST else device,
                formula=f"{n_layers} layers x n_embd {h.n_embd} x {_F32_BYTES} B, each padded to {backend.alignment}",
                source="src/llama-adapter.cpp, llama_adapter_cvec::init",
                device=device,
            )
        )
    return tuple(terms)
