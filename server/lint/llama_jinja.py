"""What of Jinja does llama.cpp's own engine lack? Only what its source decides, whatever values a template meets.

Source: llama.cpp 0c1e570 common/jinja: value.cpp, global_builtins and get_builtins of each type (filters and methods
are one table there); runtime.cpp, apply_filter (aliases), test_expression; parser.cpp, parse_jinja_statement.
"""

from collections.abc import Iterator
from typing import Final

from jinja2 import Environment, meta, nodes

GLOBALS: Final = frozenset({"raise_exception", "dict", "namespace", "strftime_now", "range", "tojson"})
TESTS: Final = frozenset({
    "boolean", "callable", "odd", "even", "false", "true", "divisibleby", "string", "integer", "float", "number",
    "iterable", "sequence", "mapping", "lower", "upper", "none", "defined", "undefined", "eq", "equalto", "ge", "gt",
    "greaterthan", "lt", "lessthan", "ne", "in", "test", "sameas",
})  # fmt: skip
# Of any type that holds a value; those that throw "not implemented" for each are left out (unique, and join of all
# but arrays).
FILTERS: Final = frozenset({
    "abs", "append", "capitalize", "default", "dictsort", "endswith", "first", "float", "format", "get", "indent",
    "int", "items", "join", "keys", "last", "length", "list", "lower", "lstrip", "map", "max", "min", "pop", "reject",
    "rejectattr", "replace", "reverse", "rsplit", "rstrip", "safe", "select", "selectattr", "slice", "sort", "split",
    "startswith", "string", "strip", "title", "tojson", "upper", "values",
    "count", "d", "trim",
})  # fmt: skip
METHODS: Final = FILTERS - {"join", "count", "d", "trim"}  # in Python, join is a method of strings alone
FILTERS_OF: Final = "common/jinja/value.cpp, get_builtins"
PARSER: Final = "common/jinja/parser.cpp, parse_jinja_statement"
STATEMENTS: Final[dict[type[nodes.Node], str]] = {
    nodes.With: "with", nodes.Block: "block", nodes.Extends: "extends", nodes.Include: "include",
    nodes.Import: "import", nodes.FromImport: "from", nodes.ScopedEvalContextModifier: "autoescape",
}  # fmt: skip
OPERATORS: Final[dict[type[nodes.Node], str]] = {nodes.FloorDiv: "//", nodes.Pow: "**"}


def lacking(environment: Environment, source: str) -> list[str]:
    """What llama.cpp does not parse, or lacks and fails on when it comes to it, with the place in its source."""
    template = environment.parse(source)
    given = meta.find_undeclared_variables(template) | environment.globals.keys()
    found = dict.fromkeys(said for node in _all(template) for said in _of(node, given))
    if any(kind == "raw_begin" for _, kind, _ in environment.lex(source)):  # which leaves no trace in the tree
        found[f"does not parse the statement 'raw' ({PARSER})"] = None
    return list(found)


def _all(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _all(child)


def _of(node: nodes.Node, given: set[str]) -> Iterator[str]:
    match node:
        case nodes.Filter(name=name) if name not in FILTERS:
            yield f"lacks the filter {name!r} ({FILTERS_OF})"
        case nodes.Filter(name="map", args=[_, *_]):
            yield "lacks the filter 'map' with a filter's name (common/jinja/value.cpp, value_array_t::get_builtins)"
        case nodes.Filter(name="tojson") if any(k.key == "sort_keys" and _is_true(k.value) for k in node.kwargs):
            yield "lacks tojson(sort_keys=true) (common/jinja/value.cpp, tojson)"
        case nodes.Filter(name="selectattr" | "rejectattr", args=[_, nodes.Const(value=name), *_]):
            if name not in TESTS:
                yield f"lacks the test {name!r} (common/jinja/value.cpp, selectattr)"
        case nodes.Test(name=name) if name not in TESTS:
            yield f"lacks the test {name!r} (common/jinja/value.cpp, global_builtins)"
        case nodes.Call(node=nodes.Name(name=name)) if name in given and name not in GLOBALS | {"caller"}:
            yield f"lacks the function {name!r} (common/jinja/value.cpp, global_builtins)"
        case nodes.Call(node=nodes.Getattr(attr=name)) if name not in METHODS:
            yield f"lacks the method {name!r} ({FILTERS_OF})"
        case nodes.For(recursive=True):
            yield "does not parse a recursive for (common/jinja/parser.cpp, parse_for_statement)"
    if type(node) in OPERATORS:
        yield f"does not parse the operator {OPERATORS[type(node)]!r} (common/jinja/lexer.h, ordered_mapping_table)"
    if type(node) in STATEMENTS:
        yield f"does not parse the statement {STATEMENTS[type(node)]!r} ({PARSER})"


def _is_true(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Const) and bool(node.value)
