"""What must an answer's text be like? A grammar, of what a request says: GBNF, a JSON schema, a format, tool calls."""

from typing import Any, Final

from server.api.errors import bad_request
from server.api.gbnf import GrammarError, check_grammar
from server.api.json_schema import schema_gbnf
from server.api.schema import Fields
from server.api.schema_words import SchemaError
from server.engine.sampling import Grammar

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
    if schema is not None:
        schema = schema if schema != {} else ANY_OBJECT
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
        ApiError: none can be made of it.
    """
    try:
        return schema_gbnf(schema)
    except SchemaError as error:
        raise bad_request(f"{param}: no grammar can be made of this JSON schema: {error}", param=param) from None
    except RecursionError:
        raise bad_request(
            f"{param}: no grammar can be made of this JSON schema: it is nested too deeply, or refers to itself",
            param=param,
        ) from None
