"""The verdict: every reason why llama.cpp would not load a file and make a context, from its header alone.

Source: llama.cpp 0c1e570 src/llama.cpp, llama_model_load: what is read in which order.
"""

from collections.abc import Iterator
from typing import Final

from ggufphys.builds.newer import NEWER, may_know
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.loads.container import check_container
from ggufphys.loads.graphs import check_graph
from ggufphys.loads.hparams import read_values
from ggufphys.loads.refusal import Refusal, RefusedError
from ggufphys.loads.table import is_known
from ggufphys.loads.tensors import check_tensors
from ggufphys.loads.types import wrong_type
from ggufphys.loads.vocabulary import check_vocabulary
from ggufphys.params import Params

ARCHITECTURE: Final = "general.architecture"


def check_loads(gguf: GGUFFile, params: Params | None = None) -> tuple[Refusal, ...]:
    """Why llama.cpp would not load this file and make a context as `params` say; empty where it would.

    Where a reason ends the process, llama.cpp says nothing of those behind it; here they follow.
    """
    params = params or Params()
    arch = gguf.architecture
    if arch in NEWER and not may_know(arch, params.llama_build):
        return (_unknown(arch, since=f", since b{NEWER[arch][1]}"),)
    return reasons(gguf, load_mtp=params.load_mtp) or tuple(check_graph(gguf, params))


def reasons(gguf: GGUFFile, *, alone: bool = True, load_mtp: bool = False) -> tuple[Refusal, ...]:
    """The same but for the graph, whatever the other parameters.

    `alone`: no context of another model is given. `load_mtp`: the prediction head's tensors are asked for, too.
    """
    return tuple(_reasons(gguf, alone, load_mtp))


def refused(gguf: GGUFFile, refusals: tuple[Refusal, ...]) -> RefusedError:
    """The error for a file that llama.cpp would not load."""
    lines = "".join(f"\n  {refusal}" for refusal in refusals)
    return RefusedError(f"{gguf.location}: llama.cpp would not load this file:{lines}", refusals=refusals)


def require_loads(gguf: GGUFFile) -> None:
    """Refuse a file that llama.cpp would not load.

    Raises:
        RefusedError: with all the reasons.
    """
    refusals = check_loads(gguf)
    if refusals:
        raise refused(gguf, refusals)


def _reasons(gguf: GGUFFile, alone: bool, load_mtp: bool) -> Iterator[Refusal]:
    yield from check_container(gguf)
    yield from _general(gguf)
    arch = gguf.metadata.get(ARCHITECTURE, "")
    if not isinstance(arch, str):
        return
    if arch in NEWER:
        yield from check_vocabulary(gguf, arch)  # its keys and tensors are not in the tables
        return
    if not is_known(arch):
        yield _unknown(arch)
        return
    values, refusals = read_values(gguf, arch, alone=alone)
    yield from refusals
    yield from check_vocabulary(gguf, arch)
    if not refusals:  # else sizes are not known
        yield from check_tensors(gguf, values, load_mtp=load_mtp)


def _unknown(arch: str, since: str = "") -> Refusal:
    return Refusal(
        what="an architecture that llama.cpp does not know",
        where=ARCHITECTURE,
        found=repr(arch),
        expected=f"one of llama.cpp's, in small letters as there{since}",
        source="llama.cpp 0c1e570 src/llama-arch.cpp, LLM_ARCH_NAMES; src/llama-model.cpp, llama_model_create",
    )


# Keys that are read whatever the architecture is, and the type that they must have if they are there.
GENERAL: Final = (
    (ARCHITECTURE, ValueType.STRING),
    ("general.file_type", ValueType.UINT32),
    ("split.count", ValueType.UINT16),
)


def _general(gguf: GGUFFile) -> Iterator[Refusal]:
    for key, wanted in GENERAL:
        yield from wrong_type(gguf, key, wanted)


__all__ = ["check_loads", "reasons", "refused", "require_loads"]
