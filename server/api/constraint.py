"""What must an answer's text be like? A grammar, from what a request says: GBNF, a JSON schema, a format, tool calls.

Schemas become grammars by llama-cpp-python's converter, which is plain Python: its file is loaded by itself, so that
this process needs no copy of llama.cpp.
"""

import json
from contextlib import suppress
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from server.api.errors import bad_request
from server.api.gbnf import GrammarError, check_grammar
from server.api.schema import Fields
from server.engine.sampling import Grammar

_ESCAPES: Final = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"}
ANY_OBJECT: Final = {"type": "object"}


def read_constraint(fields: Fields) -> Grammar | None:
    """The grammar that a request asks for: `grammar`, `json_schema` or `response_format`, one of them at most.

    Raises:
        ApiError: two of them, a format that is not known, or a schema that no grammar can be made of.
    """
    found: list[tuple[str, Grammar]] = []
    if fields.string("grammar"):
        found.append(("grammar", Grammar(text=checked(fields.string("grammar"), "grammar"))))
    schema = fields.get("json_schema")
    if schema:
        found.append(("json_schema", Grammar(text=checked(schema_grammar(schema, "json_schema"), "json_schema"))))
    wanted = _format_schema(fields.object("response_format"))
    if wanted is not None:
        text = checked(schema_grammar(wanted, "response_format"), "response_format")
        found.append(("response_format", Grammar(text=text)))
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise bad_request(f"{names} both say what the answer must be like: send one of them", param=found[0][0])
    return found[0][1] if found else None


def checked(text: str, param: str) -> str:
    """GBNF that llama.cpp may be given.

    Raises:
        ApiError: it would harm the process that reads it, or is none.
    """
    try:
        check_grammar(text)
    except GrammarError as error:
        raise bad_request(f"{param}: the grammar cannot be used: {error}", param=param) from None
    return text


def _format_schema(form: Fields) -> Any:
    """The schema of `response_format`, None where any text will do."""
    kind = form.string("type", "text")
    match kind:
        case "text":
            return None
        case "json_object":
            return form.get("schema") or ANY_OBJECT
        case "json_schema":
            # OpenAI's place for it, and that of those who leave out a level
            schema = form.object("json_schema").get("schema") or form.get("schema")
            if not isinstance(schema, dict):
                raise bad_request(
                    "response_format.json_schema.schema is missing", param="response_format.json_schema.schema"
                )
            return schema
        case _:
            raise bad_request(
                f"response_format.type is {kind!r}, expected text, json_object or json_schema",
                param="response_format.type",
            )


def schema_grammar(schema: Any, param: str) -> str:
    """GBNF of a JSON schema.

    Raises:
        ApiError: the converter can't make one of it.
    """
    try:
        return str(_converter().json_schema_to_gbnf(json.dumps(_plain(schema))))
    except Exception as error:  # a schema can be wrong in any way
        raise bad_request(
            f"{param}: no grammar can be made of this JSON schema ({type(error).__name__}: {error})", param=param
        ) from None


def _plain(schema: Any) -> Any:
    """The schema with its choices without a type beside them: the converter would read the type and forget the choices.

    `{"type": ["string", "null"], "enum": ["a", null]}`: what may be chosen says of which type it is.
    """
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "type" or not isinstance(schema.get("enum"), list)}
    return {key: value if key in ("enum", "const") else _plain(value) for key, value in kept.items()}


@cache
def _converter() -> ModuleType:
    package = find_spec("llama_cpp")
    if package is None or package.origin is None:
        raise bad_request(
            "JSON schemas need llama-cpp-python, which is not installed here: pip install 'ggufphys[all]'"
        )
    path = Path(package.origin).with_name("llama_grammar.py")
    spec = spec_from_file_location("server.api._llama_grammar", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module._build_repetition = _repetition  # type: ignore[attr-defined]
    module.SchemaConverter._format_literal = _literal
    return module


def _repetition(
    item_rule: str, min_items: int, max_items: int | None, separator_rule: str | None = None,
    item_rule_is_literal: bool = False,
) -> str:  # fmt: skip
    """An item so many times, as a count: the package writes each of them down, which large counts make gigabytes.

    Source: llama.cpp 0c1e570 common/json-schema-to-grammar.cpp, build_repetition.
    """
    del item_rule_is_literal
    if max_items == 0:
        return ""
    if not separator_rule:
        return f"{item_rule}{{{min_items},{'' if max_items is None else max_items}}}"
    more = _repetition(
        f"({separator_rule} {item_rule})", max(min_items - 1, 0), None if max_items is None else max_items - 1
    )
    return f"{item_rule} {more}" if min_items else f"({item_rule} {more})?"


def _literal(_: object, text: str) -> str:
    """Text, mostly of JSON, as GBNF: the package forgets backslashes, so that a quote in a name ended it.

    Source: llama.cpp 0c1e570 common/json-schema-to-grammar.cpp, format_literal.
    """
    with suppress(ValueError):
        text = json.dumps(json.loads(text), ensure_ascii=False)  # as models write it
    return '"' + "".join(_ESCAPES.get(c, c) for c in text) + '"'
