"""Frozen classes of our own beside the standard library's."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from ggufphys import Params, frozen

Decorator = Callable[..., Any]


def make(dataclass: Decorator, field: Decorator, **options: Any) -> tuple[type, type]:
    """A class with all that a field may have, and one that is derived from it."""

    @dataclass(frozen=True, **options)
    class Base:
        """A base."""

        a: int
        b: "tuple[int, ...]" = (1, 2)

    @dataclass(frozen=True, **{**options, "kw_only": True})
    class Derived(Base):
        """A class behind it."""

        c: list[int] = field(default_factory=list)
        d: str = field(default="d", repr=False)
        e: float = field(default=0.5, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "d", self.d.upper())

    return Base, Derived


OURS = make(frozen.dataclass, frozen.field, slots=True)
THEIRS = make(dataclasses.dataclass, dataclasses.field, slots=True)
Base, Derived = OURS
WRONG: tuple[Callable[[Any], object], ...] = (
    lambda c: c(),
    lambda c: c(1, (), 3),
    lambda c: c(1, a=1),
    lambda c: c(b=(), x=2),
    lambda c: c(1, c=[], f=2),
)


@pytest.mark.parametrize("options", [{}, {"slots": True}, {"slots": True, "kw_only": True}, {"eq": False}])
def test_as_the_standard_library(options: dict[str, Any]) -> None:
    """Signatures, texts, comparisons, dicts and copies are what `dataclasses` makes of the same class."""
    seen = []
    for dataclass, field, replace, asdict in (
        (frozen.dataclass, frozen.field, frozen.replace, frozen.asdict),
        (dataclasses.dataclass, dataclasses.field, dataclasses.replace, dataclasses.asdict),
    ):
        base, derived = make(dataclass, field, **options)
        x, y = derived(a=1, c=[3]), derived(a=1, c=[3], e=0.25)
        z = replace(x, a=5)
        seen.append((
            repr(x), repr(z), x == y, x == z, x == base(a=1), x != y, asdict(z), vars(base)["__match_args__"],
            not options.get("eq", True) or hash(base(a=1)) == hash(base(a=1)),
            [f.name for f in dataclasses.fields(derived)],
            [(f.type, f.repr, f.compare, f.kw_only) for f in dataclasses.fields(x)],
            dataclasses.asdict(z), dataclasses.replace(x, b=(7,)).b, hasattr(x, "__dict__"), copy.copy(x).c,
            str(inspect.signature(derived)) if options.get("kw_only") else "", derived.__qualname__,
        ))  # fmt: skip

    assert seen[0] == seen[1]


@pytest.mark.parametrize("call", [lambda c: c(), lambda c: c(1, 2, 3), lambda c: c(a=1, x=2)])
def test_wrong_arguments_are_told_alike(call: Callable[[type], object]) -> None:
    """A missing, an extra and an unknown argument give the message that the standard library gives."""
    messages = []
    for cls in (OURS[0], THEIRS[0]):
        with pytest.raises(TypeError) as caught:
            call(cls)
        messages.append(str(caught.value))

    assert messages[0] == messages[1]


@pytest.mark.parametrize("n_made", [0, 100])
def test_the_first_objects_are_made_as_later_ones(n_made: int) -> None:
    """Before a class's `__init__` is written and behind it, objects and errors are those of the standard library."""
    seen = []
    for dataclass, field in ((frozen.dataclass, frozen.field), (dataclasses.dataclass, dataclasses.field)):
        base, derived = make(dataclass, field, slots=True)
        made = [derived(i) for i in range(n_made)]
        errors = []
        for call in WRONG:
            with pytest.raises(TypeError) as caught:
                call(derived)
            errors.append(str(caught.value))
        x = derived(1, d="e")
        made.append(x)
        seen.append(([*map(repr, made)], errors, x.d, base(a=2, b=(3,)).b, x.c is not derived(1).c))

    assert seen[0] == seen[1]


def test_nothing_is_set_or_deleted() -> None:
    """Objects refuse changes with the standard library's error, new attributes too."""
    changes: tuple[Callable[[Any], None], ...] = (
        lambda x: setattr(x, "a", 2),
        lambda x: setattr(x, "other", 2),
        lambda x: delattr(x, "a"),
    )
    for change in changes:
        with pytest.raises(dataclasses.FrozenInstanceError):
            change(Base(a=1))
    assert Base(1) == Base(a=1)


def test_only_frozen_classes() -> None:
    """A class that is not frozen is refused where it is made."""
    with pytest.raises(TypeError, match=r"dataclasses\.dataclass"):
        frozen.dataclass(type("Changing", (), {}))


def test_pickles() -> None:
    """Parameters survive pickle and deepcopy, slots and all."""
    params = Params(n_ctx=4096, tensor_split=(1.0, 2.0))

    assert pickle.loads(pickle.dumps(params)) == params == copy.deepcopy(params)
    assert hash(copy.deepcopy(params)) == hash(params)
