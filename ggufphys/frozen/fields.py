"""What is known of a field, and the standard library's view of a class that has such fields."""

from typing import Any, Final

MISSING: Final = object()
FIELDS: Final = "__frozen_fields__"  # the attribute of a class that holds its fields by name
SIGNATURE: Final = "__signature__"


class Field:
    """A field of a class: its name and type, what it is where nothing is given, which methods look at it."""

    __slots__ = ("compare", "default", "default_factory", "kw_only", "name", "repr", "type")

    def __init__(
        self, *, default: Any = MISSING, default_factory: Any = MISSING, repr: bool = True, compare: bool = True
    ) -> None:
        self.name = ""
        self.type: Any = None
        self.kw_only = False
        self.default = default
        self.default_factory = default_factory
        self.repr = repr
        self.compare = compare

    @property
    def has_default(self) -> bool:
        """May it be left out?"""
        return self.default is not MISSING or self.default_factory is not MISSING


class StandardView:
    """An attribute that `dataclasses` or `inspect` look for (`__dataclass_fields__`), worked out once they do."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        import dataclasses  # 20 ms that `inspect` does without
        import inspect

        same: dict[str, Any] = {"__annotations__": {}}
        for field in getattr(owner, FIELDS).values():
            same["__annotations__"][field.name] = field.type
            defaults = {key: getattr(field, key) for key in ("default", "default_factory")}
            same[field.name] = dataclasses.field(
                **{key: value for key, value in defaults.items() if value is not MISSING},
                repr=field.repr, compare=field.compare, kw_only=field.kw_only,
            )  # fmt: skip
        standard: Any = dataclasses.dataclass(frozen=True)(type(owner.__name__, (), same))
        found = inspect.signature(standard) if self.name == SIGNATURE else getattr(standard, self.name)
        setattr(owner, self.name, found)  # in place of this
        return found
