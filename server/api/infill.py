"""What stands between two texts? Prompts for models that know of a middle, as llama-server writes them.

Source: llama.cpp 0c1e570 tools/server/server-common.cpp, format_prompt_infill.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.api.errors import ApiError, bad_request
from server.api.schema import Fields
from server.engine.model_info import InfillTokens, ModelInfo
from server.engine.protocol import Engine

PROJECT = "myproject\n"
FILE = "filename\n"
SNIPPET = "\n\n--- snippet ---\n\n"
Tokens = tuple[int, ...]
Tokenize = Callable[[str], Tokens]


@dataclass(frozen=True, slots=True)
class Extra:
    """Another file beside the one that is written in."""

    filename: str
    text: str


def infill_tokens(info: ModelInfo, param: str | None = None) -> InfillTokens:
    """The model's tokens for a middle.

    Raises:
        ApiError: 501, as llama-server has it, or 400 where a field asked for it: it has none.
    """
    if info.infill is None:
        message = "Infill is not supported by this model: its vocabulary has no prefix, suffix and middle token"
        if param is None:
            raise ApiError(501, message, kind="not_supported_error")
        raise bad_request(f"{param}: {message[0].lower()}{message[1:]}", param=param, code="unsupported_parameter")
    return info.infill


def middle(tokens: InfillTokens, before: Tokens, after: Tokens, *, bos: Tokens = ()) -> Tokens:
    """The prompt whose continuation stands between two texts."""
    return (*bos, tokens.prefix, *before, tokens.suffix, *after, tokens.middle)


def read_infill(fields: Fields, engine: Engine, *, n_predict: int = 0) -> Tokens:
    """The prompt of an /infill request: other files, then what stands before and behind the middle.

    `prompt` is its beginning. Prefix and suffix get 3/4 and 1/4 of a batch of tokens, the other files what the context
    leaves, and what is farthest from the middle is left out.

    Raises:
        ApiError: a field that is missing or wrong, or a model that knows of no middle.
    """
    found = infill_tokens(engine.info)
    for name in ("input_prefix", "input_suffix"):
        if fields.get(name) is None:
            raise bad_request(f'"{name}" is required', param=name)

    def tokenize(text: str) -> Tokens:
        return engine.tokenize(text, add_special=False, parse_special=False)

    begun = engine.tokenize(fields.string("prompt"), add_special=False, parse_special=True)
    n_batch = engine.info.n_batch
    n_after = max(0, n_batch // 4 - (2 + len(begun)))
    before = tokenize(fields.string("input_prefix"))[-(3 * (n_batch // 4)) :]
    after = tokenize(fields.string("input_suffix"))[:n_after]
    front = _files(_extras(fields), found, tokenize)
    room = min(len(front), max(0, engine.info.n_ctx_seq - n_batch - 2 * n_predict))
    return (*front[len(front) - room :], *middle(found, (*before, *begun), after, bos=_bos(engine)))


def _files(extras: Sequence[Extra], found: InfillTokens, tokenize: Tokenize) -> list[int]:
    front = [] if found.repo is None else [found.repo, *tokenize(PROJECT)]
    for extra in extras:
        if found.separator is None:
            front += tokenize(SNIPPET)
        else:
            front += [found.separator, *tokenize(f"{extra.filename}\n")]
        front += tokenize(extra.text)
    if found.separator is not None:
        front += [found.separator, *tokenize(FILE)]
    return front


def _bos(engine: Engine) -> Tokens:
    return engine.tokenize(engine.info.bos_text, add_special=False) if engine.info.adds_bos else ()


def _extras(fields: Fields) -> list[Extra]:
    extras = []
    for i, value in enumerate(fields.array("input_extra")):
        param = f"input_extra[{i}]"
        if not isinstance(value, dict):
            raise bad_request(f"{param} is not an object", param=param)
        extra = Fields(value, f"{param}.")
        if extra.get("text") is None:
            raise bad_request(f"{param}.text is missing", param=f"{param}.text")
        extras.append(Extra(extra.string("filename", "tmp"), extra.string("text")))
    return extras
