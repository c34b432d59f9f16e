"""Would llama.cpp read a file that stands beside a model? Its form, as of any GGUF, and the types of an adapter's keys.

What such a file must have in it is its own module's (`ggufphys.memory.attachments`).

Source: llama.cpp 0c1e570 src/llama-adapter.cpp, llama_adapter_lora_init_impl; ggml/src/gguf.cpp, gguf_kv::get_val.
"""

from collections.abc import Iterator
from typing import Final

from ggufphys.frozen import replace
from ggufphys.gguf import GGUFArray, GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.loads.container import check_container
from ggufphys.loads.refusal import Refusal, refused
from ggufphys.loads.types import WRONG_TYPE, type_name, wrong_type

SOURCE: Final = "llama.cpp 0c1e570 src/llama-adapter.cpp, llama_adapter_lora_init_impl"
KEYS: Final = {  # read without asking for their types: another one fails an assertion
    "general.type": ValueType.STRING,
    "general.architecture": ValueType.STRING,
    "adapter.type": ValueType.STRING,
    "adapter.lora.alpha": ValueType.FLOAT32,
}
INVOCATION: Final = "adapter.alora.invocation_tokens"


def check_attached(gguf: GGUFFile) -> Iterator[Refusal]:
    """Why llama.cpp would not read the file."""
    yield from check_container(gguf)
    if gguf.kind == "adapter":
        yield from _adapters_keys(gguf)


def require_attached(gguf: GGUFFile) -> None:
    """Refuse such a file.

    Raises:
        RefusedError: with all reasons.
    """
    if refusals := tuple(check_attached(gguf)):
        raise refused(gguf, refusals)


def _adapters_keys(gguf: GGUFFile) -> Iterator[Refusal]:
    for key, wanted in KEYS.items():
        for refusal in wrong_type(gguf, key, wanted):
            yield replace(refusal, source=SOURCE, ends_process=True)
    tokens = gguf.metadata.get(INVOCATION)
    if tokens is not None and not (isinstance(tokens, GGUFArray) and tokens.element_type is ValueType.UINT32):
        found = type_name(gguf, INVOCATION)
        yield Refusal(what=WRONG_TYPE, where=INVOCATION, found=found, expected="arr[u32]", source=SOURCE)


__all__ = ["check_attached", "require_attached"]
