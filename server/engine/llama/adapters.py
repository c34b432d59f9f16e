"""LoRA adapters beside a model: loaded once, before the context, and then active or not by step.

llama.cpp sets them by context, so that all rows of a batch have the same; the scheduler sees to that.
Source: llama.cpp 0c1e570 include/llama.h, llama_adapter_lora_init ("before context creation", since the graph's size
counts them), llama_set_adapters_lora; src/llama-context.cpp, set_adapters_lora.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ggufphys import UnsupportedError, open_gguf
from ggufphys.memory.attachments.lora import check_pairs, lora_pairs
from server.engine.errors import EngineError
from server.engine.llama.handles import Context, Model
from server.engine.llama.log import LOG
from server.engine.model_info import Adapter
from server.engine.request import ActiveAdapters

ALORA: Final = "adapter.alora.invocation_tokens"


def check_adapter(path: str, model: Path) -> None:
    """Refuse a file that is no adapter of this model.

    Raises:
        GGUFError, ValueError, OSError: it cannot be read, is no LoRA adapter, or belongs to another model.
        UnsupportedError: an activated LoRA, which applies from a token on.
    """
    with open_gguf(path) as adapter, open_gguf(model) as base:
        check_pairs(adapter, lora_pairs(adapter), base)
        if ALORA in adapter.metadata:
            raise UnsupportedError(f"{path}: an activated LoRA (aLoRA), which is not served yet")


class Adapters:
    """The adapters of a model, loaded. They are freed with it.

    Raises:
        EngineError: llama.cpp could not load one; the message quotes its log.
        As `check_adapter`.
    """

    def __init__(self, model: Model, adapters: Sequence[Adapter]) -> None:
        self._api = model.api
        self._pointers: list[Any] = []
        self._active: dict[Context, ActiveAdapters] = {}
        for adapter in adapters:
            check_adapter(adapter.path, model.path)
            mark = LOG.mark
            pointer = self._api.llama_adapter_lora_init(model.pointer, os.fsencode(adapter.path))
            if not pointer:
                raise EngineError(f"{adapter.path}: llama.cpp could not load the adapter; {LOG.quote(mark)}")
            self._pointers.append(pointer)

    def use(self, context: Context, active: ActiveAdapters) -> None:
        """Have the next steps computed with these, (number, scale) each, and no others."""
        if active == self._active.get(context, ()):
            return
        n = len(active)
        pointers = (self._api.llama_adapter_lora_p_ctypes * n)(*(self._pointers[number] for number, _ in active))
        scales = (ctypes.c_float * n)(*(scale for _, scale in active))
        self._api.llama_set_adapters_lora(context.pointer, pointers, n, scales)
        self._active[context] = active
