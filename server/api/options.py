"""What a generation request may say, whichever endpoint it comes to: fields to `GenerationRequest` options.

A field that changes the answer is honoured or refused by name; `tests/server/api/test_fields.py` walks the list.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.api.adapters import read_adapters, served_name
from server.api.constraint import read_constraint
from server.api.errors import bad_request
from server.api.sampling_fields import INT32_MAX, read_sampling
from server.api.schema import LIMITS, Fields
from server.config import ServerConfig
from server.engine.model_info import ModelInfo
from server.engine.protocol import Engine
from server.engine.request import ActiveAdapters, GenerationRequest
from server.engine.sampling import Sampling

N_MAX: Final = 128  # answers to one prompt

# Fields of OpenAI's and llama-server's APIs that would change the answer and are not supported, with the values that
# ask for nothing. null always does.
# fmt: off
UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    # OpenAI
    "functions":             ([],),
    "function_call":         ("none", "auto"),
    "modalities":            (["text"],),
    "audio":                 (),
    "prediction":            (),
    "web_search_options":    (),
    # llama-server
    "verbose":               (False,),
    "response_fields":       ([],),
    "multimodal_data":       ([],),
    "grammar_lazy":          (False,),
    "grammar_triggers":      ([],),
    "preserved_tokens":      ([],),
    "chat_format":           (0,),
    "chat_parser":           ("",),
    "generation_prompt":     ("",),
    "reasoning_control":     (False,),
    "reasoning_budget_tokens":    (-1,),
    "thinking_budget_tokens":     (-1,),
    "reasoning_budget_start_tag": ("",),
    "reasoning_budget_end_tag":   ("",),
    "reasoning_budget_end_tags":  ([],),
    "reasoning_budget_message":   ("",),
}
# fmt: on
# What changes no answer here: contexts are not shifted, what memory holds is found whichever slot is named, and tokens
# are chosen on the host. Least values.
# Source: llama.cpp 0c1e570 tools/server/server-schema.cpp, make_llama_cmpl_schema.
HINTS: Final = {"n_keep": -1, "n_discard": 0, "n_cache_reuse": 0, "id_slot": -(2**31)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A generation request without its prompt, and how it is to be shown."""

    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    cache_prompt: bool
    stream: bool
    include_usage: bool
    n: int
    max_generation_s: float | None
    n_indent: int
    return_tokens: bool
    report_progress: bool
    timings_per_token: bool
    draft_max: int | None
    draft_min: int | None
    draft_p_min: float | None
    guesses: tuple[str, ...]  # how tokens are guessed
    adapters: ActiveAdapters | None  # None: those of requests that ask for none
    model: str  # as the answer names it
    ping_interval_s: float | None  # None: the server's own

    def ping_s(self, config: ServerConfig) -> float:
        """Seconds of silence in a stream before a comment is sent; negative: none is."""
        return config.ping_s if self.ping_interval_s is None else self.ping_interval_s

    def request(self, prompt: tuple[int, ...], **more: Any) -> GenerationRequest:
        """The request for one prompt."""
        return GenerationRequest(
            prompt=prompt, max_tokens=self.max_tokens, sampling=self.sampling, cache_prompt=self.cache_prompt,
            return_tokens=self.return_tokens or self.timings_per_token, report_progress=self.report_progress,
            max_generation_s=self.max_generation_s, n_indent=self.n_indent, adapters=self.adapters,
            whole=not self.stream,
            draft_max=self.draft_max, draft_min=self.draft_min, draft_p_min=self.draft_p_min,
            **{"n": self.n, "stop": self.stop, **more},
        )  # fmt: skip


def read_options(fields: Fields, engine: Engine, *, supported: Collection[str] = ()) -> Options:
    """Read what all completion endpoints take; `supported` fields are read by the endpoint itself.

    Raises:
        ApiError: a field of the wrong type, out of range, or not supported.
    """
    refuse_unsupported(fields, supported)
    for name, least in HINTS.items():
        fields.integer(name, least, INT32_MAX)
    fields.boolean("backend_sampling", False)

    def tokenize(text: str) -> tuple[int, ...]:
        return engine.tokenize(text, add_special=False, parse_special=True)

    info = engine.info
    draft_max, p_min = _draft_max(fields, info), fields.number("speculative.p_min", -1, 0, 1)
    ping_s = fields.integer("sse_ping_interval", -1, INT32_MAX)
    limit_ms = fields.integer("t_max_predict_ms", -1, INT32_MAX)
    return Options(
        max_tokens=read_limit(fields),
        sampling=read_sampling(fields, read_constraint(fields), tokenize, info.n_vocab),
        stop=fields.strings("stop"),
        cache_prompt=fields.boolean("cache_prompt", True),
        stream=fields.boolean("stream", False),
        include_usage=fields.object("stream_options").boolean("include_usage", False),
        n=_n(fields),
        max_generation_s=limit_ms / 1000 if limit_ms is not None and limit_ms > 0 else None,
        n_indent=fields.integer("n_indent", 0, INT32_MAX) or 0,
        return_tokens=fields.boolean("return_tokens", False),
        report_progress=fields.boolean("return_progress", False),
        timings_per_token=fields.boolean("timings_per_token", False),
        draft_max=draft_max,
        guesses=() if draft_max == 0 else info.guesses,
        draft_min=fields.integer("speculative.n_min", 0, INT32_MAX),
        draft_p_min=None if p_min < 0 else p_min,
        adapters=read_adapters(fields, info),
        model=served_name(fields.get("model"), info),
        ping_interval_s=None if ping_s is None else float(ping_s) or -1.0,  # 0 is never, too
    )


def refuse_unsupported(fields: Fields, supported: Collection[str] = ()) -> None:
    """Refuse fields of `UNSUPPORTED` that ask for something, but for those that are `supported` after all.

    Raises:
        ApiError: naming the first such field.
    """
    for name, harmless in UNSUPPORTED.items():
        value = fields.get(name)
        if value is None or name in supported or any(_same(value, each) for each in harmless):
            continue
        allowed = f"; leave it out or send {_words(harmless)}" if harmless else "; leave it out"
        raise bad_request(f"{name} is not supported by this server{allowed}", param=name, code="unsupported_parameter")


def _same(value: object, other: object) -> bool:
    """Equality as JSON has it: 1 is 1.0, but not true."""
    numbers = (int, float)
    return value == other and (type(value) is type(other) or (type(value) in numbers and type(other) in numbers))


def _words(harmless: tuple[Any, ...]) -> str:
    return " or ".join(str(each).lower() if isinstance(each, bool) else repr(each) for each in harmless)


def read_limit(fields: Fields) -> int | None:
    """The limit by the first of its names that is given; -1 is none."""
    for name in LIMITS:
        value = fields.integer(name, -1, 2**53)
        if value is not None:
            return None if value < 0 else min(value, INT32_MAX)
    return None


def _draft_max(fields: Fields, info: ModelInfo) -> int | None:
    """How many tokens may be guessed at a time: at most as many as the server was started with."""
    n = fields.integer("speculative.n_max", 0, INT32_MAX)
    if n and not info.guesses:
        raise bad_request(
            f"speculative.n_max is {n}, but this server guesses no tokens: {info.why_no_guess}",
            param="speculative.n_max",
            code="unsupported_parameter",
        )
    return n


def _n(fields: Fields) -> int:
    """How many answers; `n_cmpl` is llama-server's name."""
    n = fields.integer("n", 1, N_MAX)
    return n if n is not None else fields.integer("n_cmpl", 1, N_MAX) or 1
