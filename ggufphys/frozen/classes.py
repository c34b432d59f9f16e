"""The decorator: a class's annotations to its methods."""

from collections.abc import Callable, Mapping
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
        body = {**methods, **body, FIELDS: found, **_VIEWS}
        if slots:
            taken = {name for base in plain.__mro__[1:-1] for name in getattr(base, "__slots__", ())}
            body["__slots__"] = tuple(name for name in own if name not in taken)
        made = type(plain)(plain.__name__, plain.__bases__, body)
        made.__qualname__ = plain.__qualname__
        made.__init__ = _first_init(made, found, slots=slots)  # type: ignore[misc]
        made.__setattr__, made.__delattr__ = _frozen(made, found)  # type: ignore[method-assign]
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
    """What needs to know the fields' names alone."""
    shown = [f.name for f in found.values() if f.repr]
    state = _getter([*found])
    methods: dict[str, Any] = {
        "__match_args__": tuple(f.name for f in found.values() if not f.kw_only),
        "__getstate__": lambda self: state(self),
        "__setstate__": lambda self, values: _restore(self, found, values),
    }
    if repr:
        methods["__repr__"] = lambda self: (
            f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"
        )
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


def _restore(self: Any, found: Mapping[str, Field], values: tuple[Any, ...]) -> None:
    for name, value in zip(found, values, strict=True):
        object.__setattr__(self, name, value)


def _frozen(cls: type, found: Mapping[str, Field]) -> tuple[Callable[..., None], Callable[..., None]]:
    """What refuses to set and to delete attributes."""

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if type(self) is cls or name in found:
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self: Any, name: str) -> None:
        if type(self) is cls or name in found:
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot delete field {name!r}")
        object.__delattr__(self, name)

    return __setattr__, __delattr__


def _first_init(cls: type, found: Mapping[str, Field], *, slots: bool) -> Callable[..., None]:
    """An `__init__` that goes through the fields one by one; of many objects it is replaced by a written one.

    What it cannot make of its arguments it leaves to that, too, whose errors are Python's own.
    """
    positional = [f.name for f in found.values() if not f.kw_only]
    defaults = {f.name: f.default for f in found.values() if f.default is not MISSING}
    factories = {f.name: f.default_factory for f in found.values() if f.default_factory is not MISSING}
    finish: Callable[[Any], None] | None = getattr(cls, "__post_init__", None)
    put, n_made = object.__setattr__, 0

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal n_made
        n_made += 1
        given = {**dict(zip(positional, args)), **kwargs}  # noqa: B905  # lengths are compared below
        values = {**defaults, **given}
        for name in factories.keys() - values.keys():
            values[name] = factories[name]()
        if n_made > FEW or len(given) < len(args) + len(kwargs) or values.keys() != found.keys():
            written = _init(cls, found, slots=slots)
            setattr(cls, "__init__", written)  # noqa: B010  # mypy knows no other way
            written(self, *args, **kwargs)
            return
        for name, value in values.items():
            put(self, name, value)
        if finish is not None:
            finish(self)

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
            lines.append(f"self.__dict__[{f.name!r}] = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    text = f"def __init__(self, {', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"])
    exec(text, names)
    made: Callable[..., None] = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made
