"""What a generation request may say, whichever endpoint it comes to: fields to `GenerationRequest` options.

A field that changes the answer and is not supported is refused, never ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.api.errors import ApiError, bad_request
from server.api.schema import Fields
from server.engine.sampling import Sampling

INT32_MAX: Final = 2**31 - 1
RANDOM_SEED: Final = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: another one each time, as -1 is, which it is in 32 bits
DEFAULTS: Final = Sampling()

# Fields of OpenAI's and llama-server's APIs that would change the answer and are not supported, with the values that
# ask for nothing. null always does.
# fmt: off
UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    # OpenAI
    "n":                  (1,),
    "best_of":            (1,),
    "suffix":             ("",),
    "logprobs":           (False,),
    "top_logprobs":       (0,),
    "tools":              ([],),
    "tool_choice":        ("none", "auto"),
    "functions":          ([],),
    "function_call":      ("none", "auto"),
    "response_format":    ({"type": "text"},),
    "modalities":         (["text"],),
    "audio":              (),
    "prediction":         (),
    "web_search_options": (),
    # llama-server
    "n_probs":            (0,),
    "n_cmpl":             (1,),
    "grammar":            ("",),
    "json_schema":        ({},),
    "samplers":           (),
    "typical_p":          (1,),
    "top_n_sigma":        (-1, 0),
    "xtc_probability":    (0,),
    "dynatemp_range":     (0,),
    "dry_multiplier":     (0,),
    "mirostat":           (0,),
    "t_max_predict_ms":   (-1, 0),
    "lora":               ([],),
}
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A generation request without its prompt."""

    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    cache_prompt: bool
    stream: bool
    include_usage: bool


def read_options(fields: Fields) -> Options:
    """Read what both completion endpoints take.

    Raises:
        ApiError: a field of the wrong type, out of range, or not supported.
    """
    refuse_unsupported(fields)
    return Options(
        max_tokens=_max_tokens(fields),
        sampling=_sampling(fields),
        stop=fields.strings("stop"),
        cache_prompt=fields.boolean("cache_prompt", True),
        stream=fields.boolean("stream", False),
        include_usage=fields.object("stream_options").boolean("include_usage", False),
    )


def refuse_unsupported(fields: Fields) -> None:
    """Refuse fields of `UNSUPPORTED` that ask for something.

    Raises:
        ApiError: naming the first such field.
    """
    for name, harmless in UNSUPPORTED.items():
        value = fields.get(name)
        if value is None or any(_same(value, each) for each in harmless):
            continue
        allowed = f"; leave it out or send {_words(harmless)}" if harmless else "; leave it out"
        raise bad_request(f"{name} is not supported by this server{allowed}", param=name, code="unsupported_parameter")


def _same(value: object, other: object) -> bool:
    """Equality as JSON has it: 1 is 1.0, but not true."""
    numbers = (int, float)
    return value == other and (type(value) is type(other) or (type(value) in numbers and type(other) in numbers))


def _words(harmless: tuple[Any, ...]) -> str:
    return " or ".join(str(each).lower() if isinstance(each, bool) else repr(each) for each in harmless)


def _max_tokens(fields: Fields) -> int | None:
    """The newest of OpenAI's names wins, llama-server's comes last; -1 is llama-server's word for no limit."""
    for name in ("max_completion_tokens", "max_tokens", "n_predict"):
        value = fields.integer(name, -1, INT32_MAX)
        if value is not None:
            return None if value < 0 else value
    return None


def _sampling(fields: Fields) -> Sampling:
    top_k = fields.integer("top_k", -1, INT32_MAX)
    repeat_last_n = fields.integer("repeat_last_n", -1, INT32_MAX)
    seed = fields.integer("seed", -(2**63), 2**64 - 1)
    return Sampling(
        temperature=fields.number("temperature", DEFAULTS.temperature, 0, 100),
        top_k=DEFAULTS.top_k if top_k is None else max(top_k, 0),
        top_p=fields.number("top_p", DEFAULTS.top_p, 0, 1),
        min_p=fields.number("min_p", DEFAULTS.min_p, 0, 1),
        seed=None if seed is None or seed % 2**32 == RANDOM_SEED else seed,
        repeat_penalty=fields.number("repeat_penalty", DEFAULTS.repeat_penalty, 0.1, 10),
        repeat_last_n=DEFAULTS.repeat_last_n if repeat_last_n is None else repeat_last_n,
        frequency_penalty=fields.number("frequency_penalty", DEFAULTS.frequency_penalty, -2, 2),
        presence_penalty=fields.number("presence_penalty", DEFAULTS.presence_penalty, -2, 2),
        logit_bias=_logit_bias(fields.object("logit_bias")),
        ignore_eos=fields.boolean("ignore_eos", False),
    )


def _logit_bias(fields: Fields) -> tuple[tuple[int, float], ...]:
    biases = []
    for name in fields.values:
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise _not_a_token(fields, name)
        biases.append((int(name), fields.number(name, 0, -100, 100)))
    return tuple(biases)


def _not_a_token(fields: Fields, name: str) -> ApiError:
    return bad_request(f"logit_bias has the key {name!r}, expected token ids", param=fields.param(name))
