"""Is the body what the endpoint takes? A JSON object, read field by field; a field of the wrong type is named.

`null` counts as absent, as OpenAI has it. Fields that nobody reads are ignored, as OpenAI does.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from flask import Request, current_app

from server.api.errors import ApiError, bad_request

JSON_TYPES: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}

# Fields of conversations alone, whichever API's words they come in: what they are by default is for `conversation/`.
OF_CONVERSATIONS: Final = (
    "chat_template_kwargs", "reasoning_format", "reasoning_budget_tokens", "reasoning_budget_message",
)  # fmt: skip
# One limit's names: llama-server's wins over OpenAI's, and its newer one over the older; any of them over a default.
LIMITS: Final = ("n_predict", "max_completion_tokens", "max_tokens")
# Each says what an answer must be like, as do the formats in `FORMATTED`: a request's own stands in place of a default.
CONSTRAINTS: Final = ("grammar", "json_schema", "response_format", "output_format")
FORMATTED: Final = ("text", "output_config")
UNCODED: Final = ("", "identity", "utf-8", "utf8")  # some clients say there which characters they send
MAX_SHOWN: Final = 32  # characters of a value in a message: JSON numbers can be long


def read_body(request: Request) -> "Fields":
    """The request's JSON object.

    Raises:
        ApiError: another content type (415), not JSON or not an object (400).
        RequestEntityTooLarge: more bytes than the application allows (413).
    """
    body = _read_json(request)
    if not isinstance(body, dict):
        raise bad_request(f"the body is {_type_of(body)}, expected an object")
    return with_defaults({k: v for k, v in body.items() if v is not None})


def with_defaults(given: dict[str, Any]) -> "Fields":
    """What a request has given, and the server's defaults of other fields."""
    defaults = current_app.config.get("FIELD_DEFAULTS") or {}
    if given.get("stop") in ("", []):  # no strings to stop at are as good as no field
        del given["stop"]
    less = set(OF_CONVERSATIONS)
    if not given.keys().isdisjoint(LIMITS):
        less |= set(LIMITS)
    if not given.keys().isdisjoint(CONSTRAINTS) or any(_has_format(given.get(name)) for name in FORMATTED):
        less |= set(CONSTRAINTS)
    return Fields({**{k: v for k, v in defaults.items() if k not in less}, **given})


def _has_format(value: object) -> bool:
    return isinstance(value, dict) and value.get("format") is not None


def read_array(request: Request) -> list[Any]:
    """The request's JSON array. Raises as `read_body`."""
    body = _read_json(request)
    if not isinstance(body, list):
        raise bad_request(f"the body is {_type_of(body)}, expected an array")
    return body


def _read_json(request: Request) -> Any:
    if request.mimetype == "multipart/form-data":  # others are read as JSON, as llama-server does: curl -d has its own
        raise ApiError(
            415,
            f"the content type is {request.mimetype!r}, expected application/json "
            "(curl: -H 'Content-Type: application/json')",
            code="unsupported_media_type",
        )
    coded = request.headers.get("Content-Encoding", "identity").lower()
    if coded not in UNCODED:
        raise ApiError(
            415, f"the body is {coded!r:.32} by its Content-Encoding, expected JSON as it is",
            code="unsupported_media_type",
        )  # fmt: skip
    try:
        return json.loads(request.get_data(cache=False), parse_constant=_no_constant)
    except RecursionError:
        raise bad_request("the body is nested too deeply to be read") from None
    except (json.JSONDecodeError, UnicodeDecodeError, _ConstantError) as error:
        raise bad_request(f"the body is not valid JSON: {error}") from None
    except ValueError:  # Python's says what to change in a program (`sys.get_int_max_str_digits`)
        raise bad_request("the body has a number of more digits than are read") from None


class _ConstantError(ValueError):
    """A constant that JavaScript has and JSON has not."""


def _no_constant(name: str) -> NoReturn:
    raise _ConstantError(f"{name} is not a JSON number")


class Fields:
    """The fields of one object; `path` is put before their names in messages."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.values = values
        self.path = path

    def get(self, name: str) -> Any:
        """A field's value, None when it is absent or null."""
        return self.values.get(name)

    def param(self, name: str) -> str:
        """The field's full name."""
        return f"{self.path}{name}"

    def wrong(self, name: str, expected: str) -> ApiError:
        """The error for a field that is not what was expected."""
        return bad_request(
            f"{self.param(name)} is {_type_of(self.get(name))}, expected {expected}", param=self.param(name)
        )

    def string(self, name: str, default: str = "") -> str:
        """A string."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return self.unicode(name, value)

    def boolean(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "a boolean")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        """An integer from `low` to `high`."""
        value = self.get(name)
        if value is None:
            return None
        if type(value) is float and value.is_integer():
            value = int(value)  # clients whose language has one kind of number send 6.0
        if type(value) is not int:
            raise self.wrong(name, "an integer")
        if not low <= value <= high:
            raise self._out_of_range(name, value, low, high)
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        value = self.get(name)
        if value is None:
            return default
        if type(value) not in (int, float):
            raise self.wrong(name, "a number")
        if not (low <= value <= high and math.isfinite(value)):
            raise self._out_of_range(name, value, low, high)
        return float(value)

    def strings(self, name: str) -> tuple[str, ...]:
        """A string, or an array of strings; empty strings, and nulls among them, are dropped."""
        value = self.get(name)
        if value is None:
            return ()
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(each, str | None) for each in values):
            raise self.wrong(name, "a string or an array of strings")
        return tuple(self.unicode(name, each) for each in values if each)

    def object(self, name: str) -> "Fields":
        """An object; empty when absent."""
        value = self.get(name)
        if value is None:
            return Fields({}, f"{self.param(name)}.")
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(value, f"{self.param(name)}.")

    def array(self, name: str) -> list[Any]:
        """An array; empty when absent."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, "an array")
        return value

    def unicode(self, name: str, text: str) -> str:
        """`text`, if it is Unicode: JSON can spell lone surrogates, which have no UTF-8."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise bad_request(
                f"{self.param(name)} has a lone surrogate at character {error.start}: not Unicode text",
                param=self.param(name),
            ) from None
        return text

    def _out_of_range(self, name: str, value: float, low: float, high: float) -> ApiError:
        if high < 2**31 - 1:
            expected = f"{low:g} to {high:g}"
        else:
            expected = f"at least {low:,}" if value < low else f"at most {high:,}"
        found = str(value)
        if len(found) > MAX_SHOWN:
            found = f"{found[:MAX_SHOWN]}..."
        return bad_request(f"{self.param(name)} is {found}, expected {expected}", param=self.param(name))


def _type_of(value: object) -> str:
    return JSON_TYPES.get(type(value), "null")
