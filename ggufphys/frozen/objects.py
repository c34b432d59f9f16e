"""What is done with objects of such classes: fields named, some replaced, all of them as a dict."""

from typing import Any

from ggufphys.frozen.fields import FIELDS, Field


def fields(class_or_instance: Any) -> tuple[Field, ...]:
    """The fields of a class, in order."""
    return tuple(getattr(class_or_instance, FIELDS).values())


def replace(obj: Any, /, **changes: Any) -> Any:
    """Another object that differs in `changes` alone."""
    for name in getattr(obj, FIELDS):
        if name not in changes:
            changes[name] = getattr(obj, name)
    return obj.__class__(**changes)


def asdict(obj: Any) -> dict[str, Any]:
    """The object as a dict, and what it holds alike."""
    return {name: _plain(getattr(obj, name)) for name in getattr(obj, FIELDS)}


def _plain(value: Any) -> Any:
    if hasattr(type(value), FIELDS):
        return asdict(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return type(value)((_plain(k), _plain(v)) for k, v in value.items())
    return value
