"""Can llama.cpp create a context for the file alone? Empty, or the reason why not: functions for rows of `table.py`.

Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor; src/llama.cpp, llama_model_load.
"""

from ggufphys.gguf import GGUFFile

_TARGET = "a draft model whose context llama.cpp creates only beside its target's (ctx_other)"


def can_run(gguf: GGUFFile) -> str:
    """An ordinary model."""
    return ""


def shares_cache(gguf: GGUFFile) -> str:
    """A draft model that reads its target's cache."""
    return f"{_TARGET}: it reads the target's cache"


def borrows_vocabulary(gguf: GGUFFile) -> str:
    """A draft model; it can run alone only with an embedding and an output matrix of its own."""
    missing = [n for n in ("token_embd.weight", "output.weight") if n not in gguf.tensors_by_name]
    return f"{_TARGET}: it has no {' and no '.join(missing)} of its own" if missing else ""


def borrows_embedding(gguf: GGUFFile) -> str:
    """A draft model whose embedding, if it has one, is its output matrix too."""
    return "" if "token_embd.weight" in gguf.tensors_by_name else f"{_TARGET}: it has no token_embd.weight of its own"


def is_projector(gguf: GGUFFile) -> str:
    """An encoder of images or sound."""
    return "a projector that llama.cpp loads beside a model only (--mmproj)"
