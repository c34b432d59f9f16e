"""What may a chat template do, and for how long? It comes from a file that somebody else made.

Jinja's sandbox keeps it from Python's insides. Beyond that, here: a rendering has so many seconds of its thread's
processor time, which are looked at with every round of a loop, call, filter and test; what it builds has a size; and it
may change the lists and dicts that it made itself, not those it was given.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, cast

import jinja2
import jinja2.ext
from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment, modifies_known_mutable
from jinja2.visitor import NodeTransformer

SIZE_MAX: Final = 1 << 24  # characters of a text, or members of a list
BITS_MAX: Final = 1 << 12  # of a whole number
COUNT_MAX: Final = 100_000  # of what filters and methods make by number, as Jinja's sandbox has it for range
BY_NUMBER: Final = frozenset({"batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "tojson", "zfill"})
SPELLING: Final = frozenset({"join", "pprint", "string", "tojson"})  # filters that write out all that a value holds
_WIDTH: Final = re.compile(r"%[^%a-zA-Z]*?(?:\d{6}|\*)")


class LimitError(jinja2.TemplateError):
    """The template goes on for too long, or makes something too large."""


class _Rendering(threading.local):
    """What this thread renders: when it must be done, and what it was given."""

    ends_at = float("inf")  # of the thread's processor time
    given: Mapping[str, Any] = {}


_now: Final = _Rendering()


@contextmanager
def bounded(limit_s: float, given: Mapping[str, Any]) -> Iterator[None]:
    """Give what is compiled or rendered within so many seconds of this thread's processor time."""
    _now.ends_at, _now.given = time.thread_time() + limit_s, given
    try:
        yield
    finally:
        _now.ends_at, _now.given = float("inf"), {}


class Sandbox(SandboxedEnvironment):
    """Jinja as chat templates are written for (Hugging Face's chat templating), within bounds."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        """What is kept from templates fails where it is used, whatever else that is undefined may be asked for."""
        return jinja2.Undefined(f"access to {attribute!r} of a {type(obj).__name__} is unsafe", exc=SecurityError)

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_weighed, **options)
        self.code_generator_class = _Counting
        del self.globals["lipsum"]  # a text of any length, of no use here
        for name, call in self.filters.items():
            self.use_filter(name, call)
        self.filters[_Looked.ROUNDS] = _rounds
        self.filters[_Looked.JOINED] = _joined
        tests = cast("dict[str, Callable[..., Any]]", self.tests)  # jinja2 does not say what its table holds
        tests |= {name: _bounded_filter(name, call) for name, call in tests.items()}

    def use_filter(self, name: str, call: Callable[..., Any]) -> None:
        """Have a filter of one's own, within the same bounds."""
        self.filters[name] = _bounded_filter(name, call)

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """The text of a template, macro or block."""
        found, size = [], 0
        for part in parts:
            size += len(part)
            _check_size(size)
            found.append(part)
        return "".join(found)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """What is the template's own may be changed; what it was given may not."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return not modifies_known_mutable(obj, attr) or id(obj) not in _identities(_now.given)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call comes by here."""
        _check_time()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _check_numbers(getattr(__obj, "__name__", ""), args, kwargs)
        found = super().call(__context, __obj, *args, **kwargs)
        if isinstance(owner, list | dict):
            _check_size(len(owner))
        return found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+ * ** %` may make much of little."""
        _check_time()
        sizes = [len(x) if isinstance(x, str | list | tuple) else None for x in (left, right)]
        if operator == "**" and _bits(left) * abs(right) > BITS_MAX:
            raise LimitError(f"makes a number of more than {BITS_MAX} bits")
        if operator == "*" and sizes == [None, None] and _bits(left) + _bits(right) > BITS_MAX:
            raise LimitError(f"makes a number of more than {BITS_MAX} bits")
        if operator == "*" and sizes != [None, None]:
            _check_size(int(left if sizes[0] is None else sizes[0]) * int(right if sizes[1] is None else sizes[1]))
        if operator == "+":
            _check_size((sizes[0] or 0) + (sizes[1] or 0))
        if operator == "%" and isinstance(left, str):
            if _WIDTH.search(left):
                raise LimitError(f"formats to a width of more than {COUNT_MAX}")
            _weighed(right)
        if operator == "+" and (_is_nothing(left) or _is_nothing(right)):
            if isinstance(left, str):
                return left
            if isinstance(right, str):
                return right
        return super().call_binop(context, operator, left, right)


class _Counting(CodeGenerator):
    """Writes Python of a template in which rounds of loops are looked at, and what `~` joins."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        super().visit_Template(_Looked().visit(node), frame)


class _Looked(NodeTransformer):
    ROUNDS: Final = "rounds of a loop"  # no names that a template could write
    JOINED: Final = "joined by ~"

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._filter(node.iter, self.ROUNDS)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(nodes.List(node.nodes, lineno=node.lineno), self.JOINED)

    @staticmethod
    def _filter(node: Any, name: str) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)


@pass_context
def _rounds(context: Context, members: Iterable[Any]) -> Iterator[Any]:
    del context  # is asked for, so that nothing is worked out when the template is compiled
    for member in members:
        _check_time()
        yield member


@pass_context
def _joined(context: Context, parts: list[Any]) -> str:
    del context
    return Sandbox.concat("" if part is None else str(_weighed(part)) for part in parts)


def _bounded_filter(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that looks at the time, and at what it would make."""

    @wraps(call)
    def bounded_call(*args: Any, **kwargs: Any) -> Any:
        _check_time()
        _check_numbers(name, args, kwargs)
        if name in SPELLING:
            for value in args:
                if isinstance(value, list | dict | tuple):
                    _weighed(value)
        return call(*args, **kwargs)

    return bounded_call


def _check_time() -> None:
    if time.thread_time() > _now.ends_at:
        raise LimitError("goes on for too long")


def _check_size(size: int) -> None:
    if size > SIZE_MAX:
        raise LimitError(f"makes something of more than {SIZE_MAX} members or characters")


def _check_numbers(name: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
    if name in BY_NUMBER and any(isinstance(n, int) and n > COUNT_MAX for n in (*args, *kwargs.values())):
        raise LimitError(f"asks {name} for more than {COUNT_MAX}")


def _weighed(value: Any) -> Any:
    """The value, whose text is not too long: a list may hold another many times."""
    size, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, list | tuple | dict):
            _check_time()
            left += [*each.keys(), *each.values()] if isinstance(each, dict) else each[:]
            size += len(each)
        elif isinstance(each, str):
            size += len(each)
        _check_size(size)
    return value


def _is_nothing(value: Any) -> bool:
    """None, or a name that nobody has defined: beside a text they are no text, as llama.cpp has it.

    Source: llama.cpp 0c1e570 common/jinja/runtime.cpp, binary_expression::execute_impl.
    """
    return value is None or isinstance(value, jinja2.Undefined)


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _identities(value: Any) -> set[int]:
    """Of a value's lists and dicts, itself among them."""
    found: set[int] = set()
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, list | tuple | dict) and id(each) not in found:
            found.add(id(each))
            left += each.values() if isinstance(each, dict) else each
    return found
