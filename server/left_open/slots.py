"""How many answers run side by side, and do they share one cache? What the flags leave open, and why so."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from ggufphys.context import ContextParams
from ggufphys.params import Params

DEFAULT_SLOTS: Final = 4  # as llama-server has it


def default_slots(params: Params, given: Collection[str]) -> Params:
    """`params` with llama-server's four slots over one cache, unless `given` (names of fields) has a number of them.

    Source: llama.cpp 0c1e570 tools/server/server.cpp: -np -1 is 4 with kv_unified.
    """
    if "n_seq_max" in given:
        return params
    unified = params.kv_unified if "kv_unified" in given else True
    return replace(params, n_seq_max=DEFAULT_SLOTS, kv_unified=unified)


def describe_slots(made: ContextParams, given: Collection[str], block: int = 0, *, alone: bool = False) -> str:
    """The choice in one line; `block`: so many slots' answers go together; `alone`: the engine has no more than one."""
    if block:
        n_tokens = made.n_ctx_seq - 1  # a cell is for a token that is taken back
        how = f"answers in blocks of {block}, prompts by themselves, so that others change no bit"
        return f"{made.n_seq_max} slots of {n_tokens:,} tokens each (--batch-invariant: {how})"
    if made.n_seq_max == 1:
        more = "as always with --engine numpy" if alone else "-np N runs N side by side"
        return f"1 slot of {made.n_ctx_seq:,} tokens, so requests run one after another ({more})"
    if made.kv_unified:
        why = (
            "as asked" if "kv_unified" in given else "a long request may use all of it, equal beginnings are kept once"
        )
        return f"{made.n_seq_max} slots over one cache of {made.n_ctx_seq:,} tokens ({why})"
    why = "as asked" if "kv_unified" in given else "-np divides it: each reads its own part alone, which is faster"
    return f"{made.n_seq_max} slots of {made.n_ctx_seq:,} tokens each ({why}; -kvu shares them)"
