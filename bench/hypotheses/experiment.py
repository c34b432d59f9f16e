"""What is an experiment? Data: a claim, who says so, and how its quantity is found. Read from TOML, checked by key."""

import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from bench.derive import file_type_named
from bench.hypotheses.quantities import QUANTITIES, Quantity
from ggufphys.params import CACHE_TYPES, MAX_SEQ
from ggufphys.synth import shape_named
from ggufphys.units import read_text

SHIPPED: Final = Path(__file__).with_name("claims.toml")
KEYS: Final[Mapping[str, bool]] = {
    "id": True, "claim": True, "source": True, "quantity": True, "predicted": True, "tolerance": False, "setup": False,
    "if_fails": False,
}  # fmt: skip
"""Keys of an experiment, and whether each must be there."""
MOST: Final = {"n_seq": MAX_SEQ, "users": MAX_SEQ, "times": 16}
"""The most that llama.cpp bears of a setup's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A claim that can be tested.

    Attributes:
        id: its name.
        claim: what is said, in a sentence.
        source: who says so.
        quantity: a name of `QUANTITIES`.
        setup: what the quantity is asked for: shape, type, ctx, ...
        predicted: what the claim says, as it was written: a number, a pair, or {above|below = number}.
        low, high: the same as a range; an end that is open is infinite.
        tolerance: by which share of its ends the range is widened.
        if_fails: what is said more where it fails: what the claim left out.
    """

    id: str
    claim: str
    source: str
    quantity: str
    setup: Mapping[str, Any]
    predicted: Any
    low: float
    high: float
    tolerance: float
    if_fails: str = ""


def read_experiments(path: Path) -> list[Experiment]:
    """The experiments of a file, in its order.

    Raises:
        ValueError: no TOML, or a key is missing, unknown or of the wrong kind: which, where, what was expected.
        OSError: it cannot be read.
    """
    try:
        document = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply to be read") from None
    tables = document.get("experiment")
    if set(document) != {"experiment"} or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise ValueError(
            f"{path} has {', '.join(document) or 'nothing'} at its top, expected [[experiment]] tables alone"
        )
    found = [_experiment(table, f"{path}: experiment {i}") for i, table in enumerate(tables, 1)]
    ids = [experiment.id for experiment in found]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: id {twice!r} is there twice, expected each once")
    return found


def _experiment(table: Mapping[str, Any], where: str) -> Experiment:
    if isinstance(table.get("id"), str):
        where += f" ({table['id']})"
    for key in table:
        if key not in KEYS:
            raise ValueError(f"{where}: unknown key {key!r}, expected {', '.join(KEYS)}")
    for key, needed in KEYS.items():
        if needed and key not in table:
            raise ValueError(f"{where}: no key {key!r}, expected it beside {', '.join(table) or 'others'}")
    for key in ("id", "claim", "source", "quantity", "if_fails"):
        if key in table and (not isinstance(table[key], str) or not table[key]):
            raise ValueError(f"{where}: {key} is {table[key]!r}, expected text")
    quantity = QUANTITIES.get(table["quantity"])
    if quantity is None:
        raise ValueError(f"{where}: quantity is {table['quantity']!r}, expected one of {', '.join(QUANTITIES)}")
    tolerance = table.get("tolerance", 0.0)
    if not _is_number(tolerance) or tolerance < 0:
        raise ValueError(f"{where}: tolerance is {tolerance!r}, expected a share such as 0.1")
    setup = table.get("setup", {})
    if not isinstance(setup, dict):
        raise ValueError(f"{where}: setup is {setup!r}, expected a table: setup = {{ ctx = 4096 }}")
    if quantity.parts and set(setup) != set(quantity.parts):
        found = ", ".join(setup) or "nothing"
        raise ValueError(f"{where}: setup has {found}, expected a table each for {' and '.join(quantity.parts)}")
    for part in quantity.parts or ("",):
        name = f"setup.{part}" if part else "setup"
        try:
            _check_setup(setup[part] if part else setup, name, quantity, table["quantity"])
        except ValueError as error:  # before anything runs: what was measured until then would be lost
            raise ValueError(f"{where}: {error}") from None
    low, high = _range(table["predicted"], where)
    return Experiment(
        id=table["id"], claim=table["claim"], source=table["source"], quantity=table["quantity"], setup=setup,
        predicted=table["predicted"], low=low, high=high, tolerance=float(tolerance),
        if_fails=table.get("if_fails", ""),
    )  # fmt: skip


def _check_setup(setup: Any, name: str, quantity: Quantity, quantity_name: str) -> None:
    """Refuse a setup, or a part of one, that nothing can be found for."""
    if not isinstance(setup, dict):
        raise ValueError(f'{name} is {setup!r}, expected a table: {{ type = "Q8_0" }}')
    for key, value in setup.items():
        kind = quantity.setup.get(key)
        if kind is None:
            known = ", ".join(quantity.setup) or "nothing"
            raise ValueError(f"{name} has {key!r}, which {quantity_name} knows not: expected {known}")
        if type(value) is not kind:
            raise ValueError(f"{name}.{key} is {value!r}, expected {kind.__name__}")
        try:
            _check(key, value)
        except ValueError as error:
            raise ValueError(f"{name}.{key}: {error}") from None
    missing = [key for key in quantity.needed if key not in setup]
    if missing:
        raise ValueError(f"{name} has no {missing[0]!r}, which {quantity_name} needs")
    try:
        quantity.check(setup)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check(key: str, value: Any) -> None:
    """Refuse a value of a setup that nothing can be found for."""
    if type(value) is int and not 1 <= value <= MOST.get(key, sys.maxsize):
        raise ValueError(f"{value}, expected 1 {f'to {MOST[key]}' if key in MOST else 'or more'}")
    if key in ("type_k", "type_v") and value not in CACHE_TYPES:
        raise ValueError(f"{value!r}, expected one of {', '.join(CACHE_TYPES)}")
    if key in ("type", "base"):
        file_type_named(value)
    if key == "shape":
        shape_named(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _range(value: Any, where: str) -> tuple[float, float]:
    if _is_number(value):
        return float(value), float(value)
    if isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]:
        return float(value[0]), float(value[1])
    if isinstance(value, dict) and len(value) == 1 and _is_number(next(iter(value.values()))):
        (end, number), *_ = value.items()
        if end == "above":
            return float(number), float("inf")
        if end == "below":
            return float("-inf"), float(number)
    raise ValueError(
        f"{where}: predicted is {value!r}, expected a number, a range [low, high], {{above = number}} or "
        "{below = number}"
    )
