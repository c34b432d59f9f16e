"""What is to be gone on from? Texts, token ids, or both mixed, as OpenAI and llama-server take them."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from server.api.errors import bad_request
from server.api.media import Media
from server.api.schema import Fields
from server.engine.media import Span
from server.engine.protocol import Engine

PROMPTS_MAX: Final = 10_000  # of one request: reading as many takes seconds, which nothing ends


class Prompt(NamedTuple):
    """What is gone on from: tokens, their text, and where among them images and sounds are."""

    tokens: tuple[int, ...]
    text: str
    spans: tuple[Span, ...] = ()


def read_prompts(fields: Fields, engine: Engine, name: str = "prompt") -> list[Prompt]:
    """Each prompt of a field: a string, an array of token ids, which may have strings among them, an object with a
    `prompt_string`, or an array of these.

    Raises:
        ApiError: nothing to go on from, or something else.
    """
    value = fields.get(name)
    if value is None or value == []:
        raise bad_request(f"{name} is missing, expected a string, token ids, or an array of these", param=name)
    many = isinstance(value, list) and bool(value) and not any(type(each) is int for each in value)
    if many and len(value) > PROMPTS_MAX:
        raise bad_request(f"{name} has {len(value):,} entries, at most {PROMPTS_MAX:,} are taken at a time", param=name)
    return [_prompt(fields, name, each, engine) for each in (value if many else [value])]


def are_tokens(values: Sequence[Any], n_vocab: int) -> bool:
    """Whether all are ids of the vocabulary."""
    return all(type(value) is int and 0 <= value < n_vocab for value in values)


def _prompt(fields: Fields, name: str, value: Any, engine: Engine) -> Prompt:
    if isinstance(value, dict) and isinstance(value.get("prompt_string"), str):
        if value.get("multimodal_data"):
            return _with_media(Fields(value, f"{name}."), engine)
        value = value["prompt_string"]
    if isinstance(value, str):
        text = fields.unicode(name, value)
        tokens = engine.tokenize(text)
    elif isinstance(value, list):
        tokens = mixed_tokens(fields, name, value, engine)
        text = engine.detokenize(tokens)
    else:
        raise fields.wrong(name, "a string or an array of token ids, or an array of these")
    if not tokens:
        why = ", and this model has no BOS token to start from" if isinstance(value, str) else ""
        raise bad_request(f"{name} is empty{why}", param=name)
    return Prompt(tokens, text)


def _with_media(prompt: Fields, engine: Engine) -> Prompt:
    """A text with markers, and a file for each. Raises ApiError."""
    media, text = Media(lambda: engine), prompt.unicode("prompt_string", prompt.string("prompt_string"))
    data = prompt.array("multimodal_data")
    read = media.read(media.marked(text, data, prompt.param("multimodal_data")), engine.tokenize)
    return Prompt(read.tokens, text, read.spans)


def mixed_tokens(
    fields: Fields, name: str, values: Sequence[Any], engine: Engine, *, add_special: bool = True,
    parse_special: bool = True,
) -> tuple[int, ...]:  # fmt: skip
    """Token ids with texts among them; with `add_special` BOS comes in front of a text that is the first.

    Raises:
        ApiError: the field `name` has something else.
    """
    found: list[int] = []
    for i, value in enumerate(values):
        if isinstance(value, str):
            text = fields.unicode(name, value)
            found += engine.tokenize(text, add_special=add_special and i == 0, parse_special=parse_special)
        elif are_tokens([value], engine.info.n_vocab):
            found.append(value)
        else:
            raise bad_request(
                f"{name} has something else than token ids, which are integers from 0 to {engine.info.n_vocab - 1}",
                param=name,
            )
    return tuple(found)
