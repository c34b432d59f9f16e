"""What may `fit` choose from? For each goal a scale of steps from what takes the least memory to what is wanted most.

    level     where weights are: no devices; layers on the devices, from none to all; with experts, these come last
    repack    weights as the file has them, or repacked too
    mmap      weights read into memory, or mapped: what is repacked then stays beside its copy
    types     of the K and V cache: q4_0, q8_0, f16
    n_ubatch  64, 128, 256, 512
    n_ctx     multiples of 256 cells for each stream, up to the length in training

What the user has fixed has one step. K and V are alike: CUDA builds of llama.cpp have no flash attention for mixed
types, nor for types between these, unless they are told to (GGML_CUDA_FA_ALL_QUANTS of ggml/CMakeLists.txt).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, get_args

from ggufphys.context import N_CTX_PAD
from ggufphys.frozen import dataclass, replace
from ggufphys.graph.devices.placement import used_devices
from ggufphys.memory.predict import Predictor
from ggufphys.params import Params
from ggufphys.plan.divide import LayerCosts

Goal = Literal["level", "repack", "mmap", "types", "n_ubatch", "n_ctx"]
Prefer = Literal["speed", "ctx", "quality"]
GOALS: Final[tuple[Goal, ...]] = get_args(Goal)

# Each goal is reached for as far as it goes while those behind it are at their least, which is what `least_steps` says
# as long as anything fits so, and else the beginning of the scale.
ORDERS: Final[dict[Prefer, tuple[Goal, ...]]] = {
    "speed": ("level", "repack", "types", "n_ubatch", "n_ctx", "mmap"),
    "ctx": ("n_ctx", "level", "repack", "types", "n_ubatch", "mmap"),
    "quality": ("types", "level", "repack", "n_ubatch", "n_ctx", "mmap"),
}
TYPES: Final = ("q4_0", "q8_0", "f16")
LEAST_TYPES: Final[dict[Prefer, str]] = {"speed": "q8_0", "ctx": "q4_0", "quality": "f16"}
UBATCHES: Final = (64, 128, 256, 512)
N_CTX_MIN: Final = 4096  # common/common.h, fit_params_min_ctx

Step = dict[str, Any]  # the fields of `Params` that a step sets


@dataclass(frozen=True, slots=True)
class Scale:
    """The steps of one goal, as fields of `Params`; contexts are too many to be listed."""

    steps: Sequence[Step]

    @property
    def top(self) -> int:
        """The number of the last step."""
        return len(self.steps) - 1


class _Contexts(Sequence[Step]):
    """n_ctx from `low` in steps of `step` to `high`, which is the last."""

    def __init__(self, low: int, high: int, step: int) -> None:
        self.low, self.high, self.step = low, high, step

    def __len__(self) -> int:
        return 1 + -(-(self.high - self.low) // self.step)

    def __getitem__(self, index: Any) -> Any:
        return {"n_ctx": min(self.low + index * self.step, self.high)}


def scales(
    predictor: Predictor, params: Params, fixed: Collection[str], costs: LayerCosts, *, n_ctx_min: int = 0
) -> dict[Goal, Scale]:
    """The steps of each goal. `fixed` are fields of `Params` that are not to be chosen, `n_ctx_min` 0 the default.

    Raises:
        ValueError: llama.cpp would refuse every type of the cache.
    """
    steps: dict[Goal, Sequence[Step]] = {
        "level": tuple(_levels(predictor, params, fixed, costs)),
        "repack": _switched("use_extra_bufts", params, fixed),
        "mmap": _switched("use_mmap", params, fixed),
        "types": tuple(_types(predictor, params, fixed)),
        "n_ubatch": tuple(_ubatches(params, fixed)),
        "n_ctx": _contexts(predictor, params, fixed, n_ctx_min),
    }
    return {goal: Scale(steps[goal]) for goal in GOALS}


def context_step(params: Params) -> int:
    """The least by which a context can grow: llama.cpp's granularity, for each stream."""
    return N_CTX_PAD * (1 if params.kv_unified else params.n_seq_max)


def _levels(predictor: Predictor, params: Params, fixed: Collection[str], costs: LayerCosts) -> Iterator[Step]:
    n_all = predictor.h.n_layer_all + 1  # the output is one
    experts = costs.expert_layers
    if not used_devices(params):
        yield {}
        return
    moe_fixed = not experts or "n_cpu_moe" in fixed or bool(params.override_tensor)
    n_cpu_moe = params.n_cpu_moe if moe_fixed else experts[-1] + 1
    if "n_gpu_layers" in fixed:
        n_gpu_layers = n_all if params.n_gpu_layers < 0 else min(params.n_gpu_layers, n_all)
        yield {"n_gpu_layers": n_gpu_layers, "n_cpu_moe": n_cpu_moe}
    else:
        n_gpu_layers = n_all
        if not params.override_tensor:  # which may name devices
            # Without layers of its own a device still works on large batches, and has a buffer for that.
            yield {"devices": (), "n_gpu_layers": -1, "n_cpu_moe": params.n_cpu_moe}
        for n in range(n_all + 1):
            yield {"n_gpu_layers": n, "n_cpu_moe": n_cpu_moe if n else params.n_cpu_moe}
    if not moe_fixed:
        first = n_all - n_gpu_layers  # experts of layers that are not offloaded stay where they are
        for n in reversed([0, *(il + 1 for il in experts[:-1])]):
            if n > first or n == 0:
                yield {"n_gpu_layers": n_gpu_layers, "n_cpu_moe": n}


def _switched(field: str, params: Params, fixed: Collection[str]) -> Sequence[Step]:
    """Off, which takes less, and on, which is wanted; one step where it is off, or somebody has chosen."""
    if field in fixed or not getattr(params, field):
        return ({},)
    return ({field: False}, {})


def _types(predictor: Predictor, params: Params, fixed: Collection[str]) -> Iterator[Step]:
    refusal = None
    seen = []
    for name in TYPES:
        step: Step = {field: getattr(params, field) if field in fixed else name for field in ("type_k", "type_v")}
        if step in seen:
            continue
        seen.append(step)
        try:
            tried = replace(params, **step)
            predictor.caches(tried).check(predictor.context(tried))
        except ValueError as error:
            refusal = error
            continue
        refusal = None
        yield step
    if refusal is not None:  # of the best type, and so of all
        raise refusal


def _ubatches(params: Params, fixed: Collection[str]) -> Iterator[Step]:
    if "n_ubatch" in fixed:
        yield {}
        return
    most = min(UBATCHES[-1], params.n_batch or UBATCHES[-1])
    yield from ({"n_ubatch": n} for n in (*(n for n in UBATCHES if n < most), most))


def _contexts(predictor: Predictor, params: Params, fixed: Collection[str], n_ctx_min: int) -> Sequence[Step]:
    n_stream = 1 if params.kv_unified else params.n_seq_max
    trained = predictor.h.n_ctx_train * n_stream
    if "n_ctx" in fixed:
        return ({"n_ctx": params.n_ctx or predictor.h.n_ctx_train * params.n_stream_fitted},)
    step = context_step(params)
    low = n_ctx_min or min(N_CTX_MIN * n_stream, trained)
    low = -(-low // step) * step if low < trained else low
    return _Contexts(low, max(low, trained), step)


def least_steps(goals: Mapping[Goal, Scale], prefer: Prefer) -> dict[Goal, int]:
    """How far down a goal goes by preference, as long as anything fits so: types of the cache; n_ubatch and repacked
    weights, which are speed, not at all.
    """
    wanted = TYPES.index(LEAST_TYPES[prefer])
    types = (
        i
        for i, step in enumerate(goals["types"].steps)
        if step["type_k"] not in TYPES or TYPES.index(step["type_k"]) >= wanted
    )
    return {"types": next(types, goals["types"].top), "n_ubatch": goals["n_ubatch"].top, "repack": goals["repack"].top}
