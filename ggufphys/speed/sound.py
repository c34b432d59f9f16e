"""Can these rates be reckoned with? What a calibration's file must hold, whoever wrote it or cut it off."""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Final

_MOST: Final = 1e300
_COUNTS: Final = ("n_columns", "head_size", "n_head_kv", "n_threads")
_NEEDED: Final = ("name", "n_threads", "streams", "flops_per_s")  # of each processor
_POWERS: Final = "follows"  # powers may be negative, seconds and rates may not


def faults(document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong, a sentence each; nothing where rates are numbers, and there are some of all that are listed."""
    yield from _numbers(document, "")
    yield from _texts(document)
    if not document.get("processors"):
        yield "processors is empty or missing"
        return
    for i, processor in enumerate(document["processors"]):
        where = f"processors[{i}]"
        if missing := [name for name in _NEEDED if name not in processor]:
            yield f"{where} has no {', '.join(missing)}"
            return
        if not isinstance(processor["name"], str) or not processor["n_threads"]:
            yield f"{where} is {processor['name']!r} of {processor['n_threads']} threads, expected a name and 1 or more"
            return
        for name in ("streams", "streams_by_four"):
            streams = processor.get(name, ())  # what reads by four may have none of its own
            if (not streams and name in _NEEDED) or not all(rate > 0 for _, rate in streams):
                yield f"{where}.{name} is {streams!r}, expected bytes a second above 0"
        band = processor.get("band", (1, 1))
        if len(band) != 2 or not all(isinstance(factor, int | float) for factor in band):
            yield f"{where}.band is {processor['band']!r}, expected two factors"
        for group in ("products", "attention"):
            for name, rates in processor.get(group, {}).items():
                if not rates:
                    yield f"{where}.{group}.{name} is empty"
        for name in processor.get("products", {}):
            if not _is_type(name):
                yield f"{where}.products has {name!r}, which is no type"


def _texts(document: Mapping[str, Any]) -> Iterator[str]:
    """What is said beside the rates, and is no text; of the identity what somebody reads."""
    identity: Any = document.get("identity", {})
    waiting: Any = identity.get("waiting") or {} if _is_object(identity) else {}
    threads: Any = identity.get("threads") or () if _is_object(identity) else ()
    if not _is_object(identity) or not _is_object(waiting) or not all(isinstance(n, int) for n in threads):
        yield f"identity is {identity!r}, expected what says which machine it was"
        return
    told = {name: document.get(name, "") for name in ("name", "source", "basis")}
    told |= {f"notes[{i}]": note for i, note in enumerate(document.get("notes", ()))}
    told["identity.waiting.OMP_WAIT_POLICY"] = waiting.get("OMP_WAIT_POLICY") or ""
    yield from (f"{name} is {value!r}, expected text" for name, value in told.items() if not isinstance(value, str))


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_type(name: str) -> bool:
    from ggufphys.gguf.ggml_types import GGMLType  # known by whoever predicts

    return name.removesuffix(" repacked") in GGMLType.__members__


def _numbers(value: Any, where: str) -> Iterator[str]:
    """Numbers that are none, or below 0 where that says nothing; text where seconds should be. As JSON has them."""
    items = value.items() if type(value) is dict else enumerate(value)
    for name, inner in items:
        kind = type(inner)
        if kind is not int and type(name) is str and name in _COUNTS:
            yield f"{where}{name} is {inner!r}, expected a whole number"
        elif kind is float or kind is int:
            if not 0 <= inner <= _MOST and (not isfinite(inner) or _POWERS not in where):
                yield f"{where}{name} is {inner}, expected a number of 0 or more"
        elif type(name) is str and name.endswith("_s"):
            yield f"{where}{name} is {inner!r}, expected a number"
        elif (kind is dict or kind is list or kind is tuple) and name != "identity":
            yield from _numbers(inner, f"{where}{name}.")
