"""What does a model say of itself? Its keys, `{architecture}.` in front, checked for type and count."""

from collections.abc import Sequence

from ggufphys.errors import GGUFError
from ggufphys.gguf import GGUFArray, GGUFFile

Numbers = int | tuple[int, ...]  # a key that holds one number, or one for each layer


class Keys:
    """The model's own keys, `{arch}.` in front.

    A value of another type than asked for counts as missing: llama.cpp does not read the key for this architecture, or
    `loads` has refused the file. All methods raise GGUFError for a key that is missing without a default.
    """

    __slots__ = ("arch", "gguf")

    def __init__(self, gguf: GGUFFile, arch: str) -> None:
        self.gguf = gguf
        self.arch = arch

    def full(self, name: str) -> str:
        """The whole key."""
        return f"{self.arch}.{name}"

    def optional(self, name: str) -> int | None:
        """A whole number, or None."""
        value = self.gguf.metadata.get(self.full(name))
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        value = self.optional(name)
        if value is not None:
            return value
        if default is None:
            key = self.full(name)
            if key in self.gguf.metadata:
                return self.gguf.get_int(key, 0)  # which says what it is instead
            raise GGUFError(f"{self.gguf.path}: key {key!r} is missing, which llama.cpp requires")
        return default

    def real(self, name: str, default: float | None = None) -> float:
        """A number with a fraction."""
        value = self.gguf.metadata.get(self.full(name))
        if isinstance(value, bool) or not isinstance(value, int | float):
            if default is not None:
                return default
            found = "missing" if value is None else f"a {type(value).__name__}"
            raise GGUFError(f"{self.gguf.path}: key {self.full(name)!r} is {found}, expected a number")
        return float(value)

    def reals(self, key: str, n_layer: int) -> tuple[float, ...]:
        """A number for each layer, or one for all, under its whole `key`."""
        value = self.gguf.metadata.get(key)
        numbers = (value,) * n_layer if isinstance(value, int | float) else tuple(value or ())
        if len(numbers) < n_layer or not all(isinstance(number, int | float) for number in numbers):
            raise GGUFError(
                f"{self.gguf.path}: key {key!r} is {value!r}, expected a number for each of {n_layer} layers"
            )
        return tuple(float(number) for number in numbers)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.gguf.metadata.get(self.full(name))
        return value if isinstance(value, bool) else default

    def text(self, name: str, default: str) -> str:
        """A string."""
        value = self.gguf.metadata.get(self.full(name))
        return value if isinstance(value, str) else default

    def numbers(self, name: str) -> Numbers | None:
        """A key that holds one number or an array of any length; flags count as numbers."""
        value = self.gguf.metadata.get(self.full(name))
        if not isinstance(value, GGUFArray):
            return self.optional(name)
        numbers = tuple(value)
        return tuple(int(n) for n in numbers) if all(isinstance(n, int) for n in numbers) else None

    def per_layer(self, name: str, n_layer_all: int, default: int | Sequence[int]) -> tuple[int, ...]:
        """A key that holds one number for all layers, or an array with one for each."""
        numbers = self.numbers(name)
        if numbers is None:
            return (default,) * n_layer_all if isinstance(default, int) else tuple(default)
        if isinstance(numbers, int):
            return (numbers,) * n_layer_all
        if len(numbers) != n_layer_all:
            raise GGUFError(
                f"{self.gguf.path}: key {self.full(name)!r} has {len(numbers)} entries, expected {n_layer_all}"
            )
        return numbers
