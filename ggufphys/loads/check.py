"""The verdict: every reason why llama.cpp would not load a file and make a context, from its header alone.

Source: llama.cpp 0c1e570 src/llama.cpp, llama_model_load: what is read in which order.
"""

from collections.abc import Iterator
from typing import Final

from ggufphys.builds.newer import NEWER
from ggufphys.builds.proven import require_known, why_unknown
from ggufphys.errors import GGUFError
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.loads.container import check_container
from ggufphys.loads.graphs import PARAMETERS, check_graph, how_it_runs
from ggufphys.loads.hparams import read_values
from ggufphys.loads.refusal import UNKNOWN, Refusal, refused
from ggufphys.loads.table import is_known
from ggufphys.loads.tensors import check_tensors
from ggufphys.loads.types import LOADER, TYPE_NAMES, wrong_type
from ggufphys.loads.unexpected import told
from ggufphys.loads.vocabulary import check_many_tokens, check_vocabulary
from ggufphys.params import Params

ARCHITECTURE: Final = "general.architecture"
TOKEN_TYPES: Final = "tokenizer.ggml.token_type_count"


def check_loads(gguf: GGUFFile, params: Params | None = None) -> tuple[Refusal, ...]:
    """Why llama.cpp would not load this file and make a context as `params` say; empty where it would.

    Where a reason ends the process, llama.cpp says nothing of those behind it; here they follow.

    Raises:
        GGUFError: there is no verdict, by a fault of ours; the message names a key.
    """
    params = params or Params()
    if unknown := why_unknown(gguf.architecture, params.llama_build):
        return (_unknown(gguf.architecture, why=f": {unknown}"),)
    with told(gguf, tuple):
        found = reasons(gguf, load_mtp=params.load_mtp) or tuple(check_many_tokens(gguf))
        return found or tuple(check_graph(gguf, params))


def reasons(gguf: GGUFFile, *, alone: bool = True, load_mtp: bool = False) -> tuple[Refusal, ...]:
    """Why llama.cpp would not load it, however it is run; not by its graph, nor by tokens of the largest vocabularies.

    `alone`: no context of another model is given. `load_mtp`: the prediction head's tensors are asked for, too.
    """
    found = dict.fromkeys(_reasons(gguf, alone, load_mtp))
    return tuple(sorted(found, key=lambda refusal: refusal.in_context))  # contexts are made when all is loaded


def not_like_this(gguf: GGUFFile, refusals: tuple[Refusal, ...], otherwise: str) -> ValueError:
    """The error for a file that llama.cpp runs otherwise."""
    why = "; ".join(each.found if each.where == PARAMETERS else str(each) for each in refusals)
    return ValueError(f"{gguf.location}: llama.cpp would not run it like this, but {otherwise}: {why}")


def require_loads(gguf: GGUFFile, params: Params | None) -> None:
    """Refuse a file of which llama.cpp would make no context, run like this; with None however it is run.

    Raises:
        UnsupportedError: that build of llama.cpp does not know the architecture.
        RefusedError: the file is the reason, with all of them.
        ValueError: the parameters are.
    """
    asked = params or Params()
    require_known(gguf.architecture, asked.llama_build)
    refusals = check_loads(gguf, asked)
    if not refusals:
        return
    if all(refusal.in_context for refusal in refusals) and (
        otherwise := how_it_runs(asked, lambda other: check_loads(gguf, other))
    ):
        if params is None:
            return
        raise not_like_this(gguf, refusals, otherwise)
    raise refused(gguf, refusals)


def require_data(gguf: GGUFFile) -> None:
    """Refuse a file whose tensors are not all there, which nothing can run.

    Raises:
        GGUFError: how many bytes are missing.
    """
    if gguf.missing_bytes:
        raise GGUFError(f"{gguf.location}: cannot be run: {gguf.notes[-1]}")


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
    of_vocabulary = tuple(check_vocabulary(gguf, arch))
    yield from of_vocabulary
    is_read = all(refusal.in_context for refusal in refusals)
    if is_read and not any(r.where in (f"{arch}.vocab_size", TOKEN_TYPES) for r in of_vocabulary):  # else no sizes
        yield from check_tensors(gguf, values, load_mtp=load_mtp)


def _unknown(arch: str, why: str = "") -> Refusal:
    return Refusal(
        what=UNKNOWN,
        where=ARCHITECTURE,
        found=repr(arch),
        expected=f"one of llama.cpp's, in small letters as there{why}",
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
    if len(gguf.shards) > 1:
        yield from _split(gguf)


def _split(gguf: GGUFFile) -> Iterator[Refusal]:
    """What each shard must say; a number of another type is asserted in all but the first."""
    for key, kind, shards in (
        ("split.no", ValueType.UINT16, gguf.shards),
        ("split.tensors.count", ValueType.INT32, gguf.shards[:1]),
    ):
        for i, shard in enumerate(shards):
            found = shard.header.value_types.get(key)
            if found is not kind:
                yield Refusal(
                    what="a shard does not say which it is, or how many tensors there are, as llama.cpp reads it",
                    where=f"{shard.name}: {key}",
                    found="none" if found is None else TYPE_NAMES[found],
                    expected=TYPE_NAMES[kind],
                    source=f"{LOADER}, llama_model_loader ctor",
                    ends_process=i > 0 and found is not None,
                )


__all__ = ["check_loads", "not_like_this", "reasons", "require_data", "require_loads"]
