"""Why is it as slow as it is, and what would make it faster? Where a token's time goes, and what each change gives.

Changes stand in the order of what they cost: flags first, which cost nothing, then the cache's precision, then that of
the weights, for which the file must be made again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ggufphys.errors import GGUFPhysError
from ggufphys.frozen import dataclass, replace
from ggufphys.gguf import GGUFFile
from ggufphys.graph.devices.runs import Runs
from ggufphys.loads import RefusedError
from ggufphys.memory.predict import predict_memory
from ggufphys.params import Params
from ggufphys.plan.quantize import QuantizeOptions, quantize_model, types_as_made
from ggufphys.plan.retype import retyped
from ggufphys.speed.predict import Speeds
from ggufphys.speed.rates import Machine

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
GAIN: Final = 1.02  # of decode or prefill: a change that gives less is not told
FILE_TYPES: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A weight, by its name without its layer: its share of a decode step's seconds, and of its bytes read."""

    name: str
    seconds: float
    of_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Faster:
    """A change: its flags, factors on tokens a second, and bytes of llama.cpp's buffers more."""

    flags: str
    what: str
    decode: float | None
    prefill: float
    more_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedExplanation:
    """Where decode's seconds go, by weight and by kind; the batch from which arithmetic limits it; what would help."""

    shares: Sequence[Share]
    kinds: Mapping[str, float]
    compute_bound_batch: int | None
    distinct_experts: Mapping[int, float]
    changes: Sequence[Faster]


def explain_speed(
    runs: Runs, params: Params, machine: Machine, *, prefill: int = 0, depth: int = 0, batch: int = 1
) -> SpeedExplanation:
    """Take a prediction of a model's runs apart, and try each change.

    Raises:
        see `predict_speed`.
    """
    speeds = Speeds(runs.run(params), machine, params.n_threads)
    phase = speeds.decode(batch, depth) if speeds.has_cache else speeds.prefill(prefill or 512, depth)
    total_s = phase.seconds.value
    by_name: dict[str, float] = {}
    kinds: dict[str, float] = {}
    for times, step in phase.steps:
        for name, seconds in step.by_weight.items():
            by_name[name] = by_name.get(name, 0.0) + times * seconds.total
        for kind, seconds in step.by_kind.items():
            kinds[kind] = kinds.get(kind, 0.0) + times * seconds.total / total_s
        kinds["beside nodes"] = kinds.get("beside nodes", 0.0) + times * (step.outside_s + step.link_s) / total_s
    shares = [Share(name=n, seconds=s, of_seconds=s / total_s) for n, s in by_name.items()]
    n_expert, n_used = speeds.run.layouts.h.n_expert, speeds.run.layouts.h.n_expert_used
    return SpeedExplanation(
        shares=sorted(shares, key=lambda share: -share.seconds),
        kinds=dict(sorted(kinds.items(), key=lambda item: -item[1])),
        compute_bound_batch=_compute_bound(speeds, depth),
        distinct_experts=_experts(n_expert, n_used),
        changes=list(_changes(runs, params, machine, speeds, prefill or 512, depth, batch)),
    )


def _experts(n_expert: int, n_used: int) -> Mapping[int, float]:
    from ggufphys.graph.describing.cost import distinct_experts

    return {n: distinct_experts(n_expert, n_used, n) for n in BATCHES} if n_expert else {}


def _compute_bound(speeds: Speeds, depth: int) -> int | None:
    """The least batch whose decode arithmetic limits; None if none does, or nothing is decoded."""
    if not speeds.has_cache:
        return None
    return next((n for n in BATCHES if speeds.decode(n, depth).limit == "compute"), None)


def _changes(
    runs: Runs, params: Params, machine: Machine, now: Speeds, prefill: int, depth: int, batch: int
) -> Iterator[Faster]:
    prefill = min(prefill, now.context.n_ctx_seq - depth)
    before = _rates(now, prefill, depth, batch)
    gguf = runs.gguf
    memory = _buffer_bytes(gguf, params)
    for flags, what, file, changed in _tried(gguf, params, machine):
        try:
            run = (runs if file is gguf else Runs(file)).run(changed)
            after = _rates(Speeds(run, machine, changed.n_threads), prefill, depth, batch)
            nbytes = _buffer_bytes(file, changed)
        except (GGUFPhysError, ValueError):
            continue  # llama.cpp would refuse it for this model
        decode = after[0] / before[0] if before[0] and after[0] else None
        reading = after[1] / before[1]
        if max(decode or 0.0, reading) >= GAIN:
            more = None if memory is None or nbytes is None else nbytes - memory
            yield Faster(flags=flags, what=what, decode=decode, prefill=reading, more_bytes=more)


def _rates(speeds: Speeds, prefill: int, depth: int, batch: int) -> tuple[float | None, float]:
    decode = speeds.decode(batch, depth).tok_per_s.value if speeds.has_cache else None
    return decode, speeds.prefill(prefill, depth).tok_per_s.value


def _tried(gguf: GGUFFile, params: Params, machine: Machine) -> Iterator[tuple[str, str, GGUFFile, Params]]:
    counts = sorted({p.n_threads for p in machine.processors if p.name == "CPU"})
    used = params.n_threads or max(counts, default=1)
    for n in counts:
        if n != used:
            yield f"-t {n}", f"{n} thread{'s' * (n > 1)}", gguf, replace(params, n_threads=n)
    repack = "--repack" if not params.use_extra_bufts else "--no-repack"
    yield (
        repack,
        "weights as they are" if params.use_extra_bufts else "weights in the layout of the CPU's kernels",
        gguf,
        (replace(params, use_extra_bufts=not params.use_extra_bufts)),
    )
    if params.flash_attn == "off":
        yield "-fa on", "flash attention", gguf, replace(params, flash_attn="on")
    for n in (256, 1024, 2048):
        if n != params.n_ubatch and n <= params.n_batch:
            yield f"-ub {n}", f"prompts in batches of {n}", gguf, replace(params, n_ubatch=n)
    if params.type_k == "f16":
        yield "-ctk q8_0 -ctv q8_0", "the cache in Q8_0", gguf, replace(params, type_k="q8_0", type_v="q8_0")
    for file_type in FILE_TYPES:
        made = _as_type(gguf, file_type)
        if made is not None and made.tensor_bytes < gguf.tensor_bytes:
            yield f"llama-quantize ... {file_type}", f"weights as {file_type}", made, params


def _as_type(gguf: GGUFFile, file_type: str) -> GGUFFile | None:
    """The file as llama-quantize would make it; None where it would not."""
    try:
        options = QuantizeOptions(allow_requantize=True)
        types, _ = types_as_made(quantize_model(gguf.metadata), gguf.tensors, file_type, options)
    except (GGUFPhysError, ValueError):
        return None
    return retyped(gguf, types, file_type)


def _buffer_bytes(gguf: GGUFFile, params: Params) -> int | None:
    try:
        return predict_memory(gguf, params).total_bytes
    except (GGUFPhysError, RefusedError, ValueError):
        return None
