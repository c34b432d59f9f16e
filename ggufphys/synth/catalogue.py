"""Which models' shapes do we know? `shapes.toml` as `Shape` objects."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from ggufphys.frozen import dataclass, replace
from ggufphys.gguf.values import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeLlama3:
    """Llama 3's stretching of rotary frequencies, which conversion turns into the tensor rope_freqs.weight."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A published model's hyperparameters.

    `keys` are GGUF's names less the architecture's prefix; `n_params` is the published number of weights, None for a
    shape that was cut down.
    """

    name: str
    architecture: str
    source: str
    n_vocab: int
    tied: bool  # the output is computed with the token embeddings
    keys: Mapping[str, Scalar]
    n_params: int | None
    rope_llama3: RopeLlama3 | None = None

    @property
    def n_layer(self) -> int:
        """The number of blocks."""
        return self.number("block_count")

    def number(self, key: str, default: int = 0) -> int:
        """An integer hyperparameter."""
        value = self.keys.get(key, default)
        assert isinstance(value, int), f"{self.name}: {key} is {value!r}, expected an integer"
        return value

    def real(self, key: str, default: float) -> float:
        """A floating-point hyperparameter."""
        value = self.keys.get(key, default)
        assert isinstance(value, float), f"{self.name}: {key} is {value!r}, expected a number with a decimal point"
        return value

    def cut(self, n_layer: int) -> "Shape":
        """The same shape with its first `n_layer` blocks only.

        Raises:
            ValueError: it does not have so many.
        """
        if not 1 <= n_layer <= self.n_layer:
            raise ValueError(f"{self.name} has {self.n_layer} layers, asked for {n_layer}")
        if n_layer == self.n_layer:
            return self
        return replace(self, keys={**self.keys, "block_count": n_layer}, n_params=None)


@cache
def shapes() -> Mapping[str, Shape]:
    """The catalogue by name, in the order of the file."""
    text = resources.files("ggufphys.synth").joinpath("shapes.toml").read_text(encoding="utf-8")
    return {name: _shape(name, table) for name, table in tomllib.loads(text).items()}


def shape_named(name: str) -> Shape:
    """A shape of the catalogue.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    if name not in shapes():
        raise ValueError(f"no shape named {name!r} (expected one of {', '.join(shapes())})")
    return shapes()[name]


def _shape(name: str, table: Mapping[str, Any]) -> Shape:
    rope = table.get("rope_llama3")
    return Shape(
        name=name,
        architecture=table["architecture"],
        source=table["source"],
        n_vocab=table["n_vocab"],
        tied=table.get("tied", False),
        keys=dict(_flat(table["keys"])),
        n_params=table["n_params"],
        rope_llama3=RopeLlama3(**rope) if rope else None,
    )


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """Dotted keys: TOML reads `rope.freq_base` as a table in a table."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
