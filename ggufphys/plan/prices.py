"""What does it cost to need less memory? The levers of a machine without a GPU, from cheap to dear, and their prices.

What the prices say was measured on x86 where it has a number: a decode without repacked weights took 1.2 times as long
(a 1.1 B model, Q4_K_M, AVX-512), a prompt more.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ggufphys.context import N_CTX_PAD
from ggufphys.frozen import dataclass, replace
from ggufphys.memory.prediction import MemoryPrediction
from ggufphys.params import Params
from ggufphys.plan.fits import fits
from ggufphys.plan.search import largest

READ: Final = "weights are read, not mapped: each start reads the whole file, and nothing of it can be dropped"
PLAIN: Final = "weights stay as the file has them: prompts and decoding are slower on this CPU"
SMALLER_BATCH: Final = "prompts are read in smaller batches: slower"
SHORTER: Final = "less context"
_QUANTISED: Final = {"q8_0": "K and V lose next to nothing", "q4_0": "K and V lose precision: answers may get worse"}


@dataclass(frozen=True, slots=True)
class Lever:
    """A change of parameters: its flags, the fields it sets, what it costs. Without fields it is a shorter context."""

    flags: tuple[str, ...]
    fields: dict[str, Any]
    price: str


def _types(name: str) -> Lever:
    return Lever(("-ctk", name, "-ctv", name, "-fa", "on"), {"type_k": name, "type_v": name}, _QUANTISED[name])


READING: Final = Lever(("-lm", "none"), {"use_mmap": False, "use_mlock": False}, READ)
BATCH: Final = Lever(("-ub", "128"), {"n_ubatch": 128}, SMALLER_BATCH)
Q8_0, Q4_0 = _types("q8_0"), _types("q4_0")
NO_REPACK: Final = Lever(("--no-repack",), {"use_extra_bufts": False}, PLAIN)
CONTEXT: Final = Lever((), {}, SHORTER)

# From cheap to dear: what starts slower, what reads prompts slower, what changes answers, what decodes slower.
CHANGES: Final[tuple[tuple[Lever, ...], ...]] = (
    (READING,),
    (BATCH,),
    (READING, BATCH),
    (Q8_0,),
    (READING, Q8_0),
    (READING, BATCH, Q8_0),
    (CONTEXT,),
    (READING, CONTEXT),
    (NO_REPACK,),
    (NO_REPACK, BATCH, Q8_0),
    (NO_REPACK, CONTEXT),
    (READING, BATCH, Q4_0, CONTEXT),
    (READING, NO_REPACK, BATCH, Q4_0, CONTEXT),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What would make it fit: flags for llama-server, and what each costs."""

    flags: tuple[str, ...]
    prices: tuple[str, ...]


def prices(params: Params) -> tuple[tuple[str, str], ...]:
    """What a way to run a model costs, as flags and words, where it is not as llama.cpp has it by default."""
    found = []
    if params.load_mode == "none":
        found.append(("-lm none", READ))
    if not params.use_extra_bufts:
        found.append(("--no-repack", PLAIN))
    if params.type_k in _QUANTISED and params.type_k == params.type_v:
        found.append((f"-ctk {params.type_k} -ctv {params.type_v}", _QUANTISED[params.type_k]))
    if params.n_ubatch < Params().n_ubatch:
        found.append((f"-ub {params.n_ubatch}", SMALLER_BATCH))
    return tuple(found)


def cheapest_change(
    predict: Callable[[Params], MemoryPrediction], params: Params, n_ctx: int, memory_bytes: int
) -> Change | None:
    """The cheapest change after which it fits into main memory of `memory_bytes`; None if none of them is enough.

    `n_ctx` is the context that it has now.

    Raises:
        UnsupportedError, GGUFError: see `predict`.
    """
    return next(_changes(predict, params, n_ctx, memory_bytes), None)


def _changes(
    predict: Callable[[Params], MemoryPrediction], params: Params, n_ctx: int, memory_bytes: int
) -> Iterator[Change]:
    def over(tried: Params) -> int:
        return -min(fit.margin_bytes for fit in fits(predict(tried), memory_bytes))

    for levers in CHANGES:
        changed = replace(params, **{k: v for lever in levers for k, v in lever.fields.items()})
        if not _less(params, changed, levers):
            continue
        try:
            if CONTEXT in levers:
                n_fitting = _shorter(over, changed, n_ctx)
                if n_fitting:
                    yield _change(levers, ("-c", str(n_fitting)))
            elif over(changed) <= 0:
                yield _change(levers)
        except ValueError:  # a cache of these types, say, that llama.cpp refuses for this model
            continue


def _less(params: Params, changed: Params, levers: Sequence[Lever]) -> bool:
    """Does each lever change something, and for less?"""
    return all(
        (lever is not BATCH or params.n_ubatch > changed.n_ubatch)
        and (lever not in (Q8_0, Q4_0) or (params.type_k, params.type_v) == ("f16", "f16"))
        and any(getattr(params, name) != value for name, value in lever.fields.items()) | (lever is CONTEXT)
        for lever in levers
    )


def _shorter(over: Callable[[Params], int], params: Params, n_ctx: int) -> int:
    """The longest context that fits, in whole steps; 0 when not even the least does."""
    step = N_CTX_PAD * (1 if params.kv_unified else params.n_seq_max)
    top = -(-n_ctx // step) - 2  # shorter than now
    if top < 0 or over(replace(params, n_ctx=step)) > 0:
        return 0
    return step * (1 + largest(0, top, lambda n: over(replace(params, n_ctx=step * (1 + n)))))


def _change(levers: Sequence[Lever], context: tuple[str, ...] = ()) -> Change:
    return Change(
        flags=(*(word for lever in levers for word in lever.flags), *context),
        prices=tuple(lever.price for lever in levers),
    )
