"""How does memory change with a parameter, or several? A prediction for each combination of their values.

    --sweep ctx=4k..128k,type_k=f16,q8_0,np=1,4,8

`lo..hi` doubles from `lo` until `hi`, `lo..hi:step` adds; `hi` is always the last value.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Final, TypeAlias, get_args

from ggufphys.flags.devices import layers_to_offload
from ggufphys.flags.numbers import count
from ggufphys.frozen import dataclass, replace
from ggufphys.graph.allocating.traced import collection_paused
from ggufphys.memory.prediction import DeviceMemory, MemoryPrediction
from ggufphys.params import CACHE_TYPES, ContextType, FlashAttn, Params, SplitMode
from ggufphys.plan.totals import Totals, totals_of

MOST_POINTS: Final = 20_000

Value: TypeAlias = int | str | bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may be swept: the fields of `Params` it sets, other names for it, and how a value is read.

    `names` are llama.cpp's flags less their dashes. `numbers` may be given as ranges.
    """

    fields: tuple[str, ...]
    names: tuple[str, ...]
    parse: Callable[[str], Value]
    numbers: bool = False


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return text

    return parse


def _switch(text: str) -> bool:
    return _one_of("on", "off")(text) == "on"


_TYPE: Final = _one_of(*CACHE_TYPES)
# fmt: off
PARAMETERS: Final[Mapping[str, Parameter]] = {
    "n_ctx":           Parameter(("n_ctx",), ("ctx", "c", "ctx_size"), count, True),
    "n_seq_max":       Parameter(("n_seq_max",), ("np", "parallel"), count, True),
    "n_batch":         Parameter(("n_batch",), ("b", "batch_size"), count, True),
    "n_ubatch":        Parameter(("n_ubatch",), ("ub", "ubatch_size"), count, True),
    "n_outputs_max":   Parameter(("n_outputs_max",), (), count, True),
    "type_k":          Parameter(("type_k",), ("ctk", "cache_type_k"), _TYPE),
    "type_v":          Parameter(("type_v",), ("ctv", "cache_type_v"), _TYPE),
    "type_kv":         Parameter(("type_k", "type_v"), (), _TYPE),
    "flash_attn":      Parameter(("flash_attn",), ("fa",), _one_of(*get_args(FlashAttn))),
    "kv_unified":      Parameter(("kv_unified",), ("kvu",), _switch),
    "swa_full":        Parameter(("swa_full",), (), _switch),
    "n_rs_seq":        Parameter(("n_rs_seq",), (), count, True),
    "ctx_type":        Parameter(("ctx_type",), (), _one_of(*get_args(ContextType))),
    "n_threads":       Parameter(("n_threads",), ("t", "threads"), count, True),
    "use_mmap":        Parameter(("use_mmap",), ("mmap",), _switch),
    "use_mlock":       Parameter(("use_mlock",), ("mlock",), _switch),
    "use_extra_bufts": Parameter(("use_extra_bufts",), ("repack",), _switch),
    "n_gpu_layers":    Parameter(("n_gpu_layers",), ("ngl", "gpu_layers"), layers_to_offload, True),
    "n_cpu_moe":       Parameter(("n_cpu_moe",), ("ncmoe",), count, True),
    "offload_kqv":     Parameter(("offload_kqv",), ("kvo", "kv_offload"), _switch),
    "op_offload":      Parameter(("op_offload",), (), _switch),
    "split_mode":      Parameter(("split_mode",), ("sm",), _one_of(*get_args(SplitMode))),
}
# fmt: on
_BY_NAME: Final = {name: key for key, p in PARAMETERS.items() for name in (key, *p.names)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A parameter, by its name in `PARAMETERS`, and the values it takes."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Totals):
    """A combination of values, by parameter, and what it costs. `refused` says why llama.cpp would not take it.

    `n_ctx` is the context that it is run with, which nobody need have asked for.
    """

    values: dict[str, Value]
    n_ctx: int | None = None
    devices: tuple[DeviceMemory, ...] = ()
    refused: str | None = None


def parse_sweep(text: str) -> tuple[Axis, ...]:
    """The axes that `--sweep` names, in its order.

    Raises:
        ValueError: an unknown parameter, one named twice, a value that is none, or too many points.
    """
    parts: list[tuple[str, list[str]]] = []
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals:
            parts.append((name.strip(), [value.strip()]))
        elif parts:
            parts[-1][1].append(part.strip())
        else:
            raise ValueError(f"--sweep {text!r}: expected NAME=VALUE,..., such as ctx=4k..128k,type_k=f16,q8_0")
    axes = tuple(_axis(name, values) for name, values in parts)
    fields = [field for axis in axes for field in PARAMETERS[axis.name].fields]
    for field in fields:
        if fields.count(field) > 1:
            raise ValueError(f"--sweep {text!r}: {field} is named twice")
    if prod(len(axis.values) for axis in axes) > MOST_POINTS:  # none is longer than one more than these
        raise ValueError(f"--sweep {text!r}: more than {MOST_POINTS:,} points: take a larger step, or fewer values")
    return axes


def sweep(
    predict: Callable[[Params], MemoryPrediction],
    params: Params,
    axes: Sequence[Axis],
    finish: Callable[[Params], Params] = lambda params: params,
) -> Iterator[Point]:
    """A point for each combination, the last axis fastest.

    `finish` makes of each combination what will be run (as llama-server does, say).

    Raises:
        UnsupportedError, GGUFError: see `predict_memory`.
    """
    # Contexts of one kind share much of their work, so they are predicted one after the other.
    contexts = [axis for axis in axes if axis.name == "n_ctx"]
    ordered = [*(axis for axis in axes if axis.name != "n_ctx"), *contexts]
    with collection_paused():
        points = {
            values: _point(predict, params, dict(zip((axis.name for axis in ordered), values, strict=True)), finish)
            for values in product(*(axis.values for axis in ordered))
        }
    for values in product(*(axis.values for axis in axes)):
        named = dict(zip((axis.name for axis in axes), values, strict=True))
        yield replace(points[tuple(named[axis.name] for axis in ordered)], values=named)


def _point(
    predict: Callable[[Params], MemoryPrediction],
    params: Params,
    values: dict[str, Value],
    finish: Callable[[Params], Params],
) -> Point:
    asked = {field: value for name, value in values.items() for field in PARAMETERS[name].fields}
    try:
        # mypy can't know the fields' types.
        prediction = predict(finish(replace(params, **asked)))  # type: ignore[arg-type]
    except ValueError as error:
        return Point(values=values, refused=str(error))
    n_ctx = prediction.context.n_ctx
    return Point(values=values, n_ctx=n_ctx, devices=prediction.devices, **totals_of(prediction))


def _axis(name: str, texts: Sequence[str]) -> Axis:
    key = _BY_NAME.get(name.lstrip("-").replace("-", "_"))
    if key is None:
        raise ValueError(f"--sweep: no parameter {name!r}, expected one of {', '.join(PARAMETERS)}, or its flag")
    parameter = PARAMETERS[key]
    values: list[Value] = []
    for text in texts:
        try:
            values += _range(text, parameter) if parameter.numbers and ".." in text else [parameter.parse(text)]
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"--sweep {name}: {text!r}: {error}") from None
    return Axis(name=key, values=tuple(dict.fromkeys(values)))


def _range(text: str, parameter: Parameter) -> list[Value]:
    bounds, _, step_text = text.partition(":")
    low, high = (int(parameter.parse(bound)) for bound in bounds.split("..", 1))
    step = count(step_text) if step_text else 0
    if not 0 <= low <= high:
        raise ValueError("expected a range from a smaller to a larger number")
    if not step and ":" in text:
        raise ValueError("expected a step of at least 1")
    if not step and not low:
        raise ValueError(f"0 cannot be doubled: give a step, such as {text}:8")
    values: list[Value] = []
    while low < high and len(values) < MOST_POINTS:
        values.append(low)
        low = low + step if step else 2 * low
    return [*values, high]
