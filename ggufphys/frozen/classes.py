"""The decorator: a class's annotations to its methods."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from ggufphys.frozen.fields import FIELDS, MISSING, SIGNATURE, Field, StandardView

_VIEWS: Final = {name: StandardView(name) for name in (SIGNATURE, "__dataclass_fields__", "__dataclass_params__")}
FEW: Final = 16  # objects whose making takes less time than compiling a method does
field = Field


def dataclass(
    cls: type | None = None,
    /,
    *,
    frozen: bool = False,
    slots: bool = False,
    kw_only: bool = False,
    eq: bool = True,
    repr: bool = True,
) -> Any:
    """The decorator of `dataclasses`, for frozen classes."""
    if not frozen:
        raise TypeError("only frozen classes: others take dataclasses.dataclass")

    def decorate(plain: type) -> type:
        own, found = _fields(plain, kw_only)
        body = {k: v for k, v in plain.__dict__.items() if k not in ("__dict__", "__weakref__") and k not in own}
        methods = _methods(found, repr=repr, eq=eq)
        if eq and "__eq__" in body:  # which takes the inherited __hash__ away
            body = {k: v for k, v in body.items() if k != "__hash__" or v is not None}
        body = {**methods, **body, **_OF_ALL, "__init__": _first_init(found, slots=slots), FIELDS: found}
        if slots:
            taken = {name for base in plain.__mro__[1:-1] for name in getattr(base, "__slots__", ())}
            body["__slots__"] = tuple(name for name in own if name not in taken)
        made = type(plain)(plain.__name__, plain.__bases__, body)
        made.__qualname__ = plain.__qualname__
        return made

    return decorate if cls is None else decorate(cls)


def _fields(cls: type, kw_only: bool) -> tuple[Mapping[str, Field], dict[str, Field]]:
    """The fields that the class itself has, and all of them by name, those of its bases first."""
    found: dict[str, Field] = {}
    for base in reversed(cls.__mro__[1:]):
        found.update(base.__dict__.get(FIELDS, {}))
    own: dict[str, Field] = {}
    annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063  # importing `inspect` takes too long
    for name, annotation in annotations.items():
        value = cls.__dict__.get(name, MISSING)
        made = value if isinstance(value, Field) else Field(default=value)
        made.name, made.type, made.kw_only = name, annotation, kw_only
        own[name] = made
    return own, {**found, **own}


def _methods(found: Mapping[str, Field], *, repr: bool, eq: bool) -> dict[str, Any]:
    """What needs to know the fields' names alone, and what a class may have of its own instead."""
    methods: dict[str, Any] = {
        "__match_args__": tuple(f.name for f in found.values() if not f.kw_only),
        "__getstate__": _state,
        "__setstate__": _restore,
    }
    if repr:
        methods["__repr__"] = _text
    if eq:
        compared = _getter([f.name for f in found.values() if f.compare])
        methods["__eq__"] = lambda self, other: (
            compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented
        )
        methods["__hash__"] = lambda self: hash(compared(self))
    return methods


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """The values of these attributes, as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda self: tuple(getattr(self, name) for name in names)


def _text(self: Any) -> str:
    shown = (f.name for f in getattr(self, FIELDS).values() if f.repr)
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def _state(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in getattr(self, FIELDS))


def _restore(self: Any, values: tuple[Any, ...]) -> None:
    for name, value in zip(getattr(self, FIELDS), values, strict=True):
        object.__setattr__(self, name, value)


def _refuse_to_set(self: Any, name: str, value: Any) -> None:
    if _is_fixed(type(self), name):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def _refuse_to_delete(self: Any, name: str) -> None:
    if _is_fixed(type(self), name):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")
    object.__delattr__(self, name)


def _is_fixed(cls: type, name: str) -> bool:
    """A field, or any attribute where the class is not one derived from a frozen one without being frozen itself."""
    return FIELDS in cls.__dict__ or name in getattr(cls, FIELDS)


_OF_ALL: Final = {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete, **_VIEWS}


def _first_init(found: Mapping[str, Field], *, slots: bool) -> Callable[..., None]:
    """An `__init__` that goes through the fields one by one; of many objects it is replaced by a written one.

    What it cannot make of its arguments it leaves to that, too, whose errors are Python's own. Many classes have no
    object in most processes: what it needs is worked out when one is made.
    """
    put, n_made = object.__setattr__, 0
    positional: Sequence[str] = ()
    defaults: Mapping[str, Any] = {}
    factories: Mapping[str, Any] = {}

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal n_made, positional, defaults, factories
        if not n_made:
            positional = [f.name for f in found.values() if not f.kw_only]
            defaults = {f.name: f.default for f in found.values() if f.default is not MISSING}
            factories = {f.name: f.default_factory for f in found.values() if f.default_factory is not MISSING}
        n_made += 1
        given = {**dict(zip(positional, args)), **kwargs}  # noqa: B905  # lengths are compared below
        values = {**defaults, **given}
        for name in factories.keys() - values.keys():
            values[name] = factories[name]()
        if n_made > FEW or len(given) < len(args) + len(kwargs) or values.keys() != found.keys():
            cls = next(base for base in type(self).__mro__ if base.__dict__.get("__init__") is __init__)
            written = _init(cls, found, slots=slots)
            setattr(cls, "__init__", written)  # noqa: B010  # mypy knows no other way
            written(self, *args, **kwargs)
            return
        for name, value in values.items():
            put(self, name, value)
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    return __init__


def _init(cls: type, found: Mapping[str, Field], *, slots: bool) -> Callable[..., None]:
    names: dict[str, Any] = {"_missing": MISSING}
    parameters: list[str] = []
    lines: list[str] = []
    for f in sorted(found.values(), key=lambda f: f.kw_only):
        if f.kw_only and "*" not in parameters:
            parameters.append("*")
        value = f.name
        if f.default_factory is not MISSING:
            names[f"_make_{f.name}"] = f.default_factory
            value = f"_make_{f.name}() if {f.name} is _missing else {f.name}"
        if f.has_default:
            names[f"_default_{f.name}"] = f.default
        parameters.append(f"{f.name}=_default_{f.name}" if f.has_default else f.name)
        if slots:
            names[f"_set_{f.name}"] = getattr(cls, f.name).__set__
            lines.append(f"_set_{f.name}(self, {value})")
        else:
            lines.append(f"_own[{f.name!r}] = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    if lines and not slots:
        lines.insert(0, "_own = self.__dict__")
    text = f"def __init__(self, {', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"])
    exec(text, names)
    made: Callable[..., None] = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made
