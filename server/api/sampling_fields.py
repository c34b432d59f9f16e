"""How are tokens to be chosen? A request's fields, in OpenAI's and llama-server's names, as `Sampling`."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from server.api.errors import ApiError, bad_request
from server.api.schema import Fields
from server.engine.sampling import Grammar, Sampling

INT32_MAX: Final = 2**31 - 1
DEFAULTS: Final = Sampling()
BREAKERS_MAX: Final = 64  # each is looked for in the whole vocabulary when a request begins
SAMPLERS_MAX: Final = 64  # each looks at the whole vocabulary for each token, which everybody waits for
RANDOM_SEED: Final = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: another one each time, as -1 is, which it is in 32 bits
BANNED: Final = float("-inf")

Tokenize = Callable[[str], tuple[int, ...]]

# name of the field and of the attribute: least, most
NUMBERS: Final[dict[str, tuple[float, float]]] = {
    "temperature": (0, 100), "top_p": (0, 1), "min_p": (0, 1), "repeat_penalty": (0.1, 10),
    "frequency_penalty": (-100, 100), "presence_penalty": (-100, 100), "typical_p": (0, 1), "top_n_sigma": (-1, 100),
    "xtc_probability": (0, 1), "xtc_threshold": (0, 1), "dynatemp_range": (0, 100), "dynatemp_exponent": (0, 100),
    "dry_multiplier": (0, 100), "dry_base": (0, 100), "mirostat_tau": (0, 100), "mirostat_eta": (0, 100),
    "adaptive_target": (-1, 1), "adaptive_decay": (0, 0.99),
}  # fmt: skip
INTEGERS: Final[dict[str, tuple[int, int]]] = {
    "repeat_last_n": (-1, INT32_MAX), "dry_allowed_length": (0, INT32_MAX), "dry_penalty_last_n": (-1, INT32_MAX),
    "mirostat": (0, 2), "min_keep": (0, INT32_MAX),
}  # fmt: skip
# Source: llama.cpp 0c1e570 common/sampling.cpp, common_sampler_type_to_chr.
LETTERS: Final = {
    "e": "penalties", "d": "dry", "s": "top_n_sigma", "k": "top_k", "y": "typ_p", "p": "top_p", "m": "min_p",
    "x": "xtc", "t": "temperature", "i": "infill", "a": "adaptive_p",
}  # fmt: skip
# Other spellings are with - for _, or without it. Source: the same, common_sampler_types_from_names.
SPELLINGS: Final = {
    **{name.replace("_", sign): name for name in LETTERS.values() for sign in ("_", "")},
    "nucleus": "top_p", "temp": "temperature", "typ": "typ_p", "typical": "typ_p", "typical_p": "typ_p",
}  # fmt: skip
RETIRED: Final = ("tfs_z",)  # llama.cpp had it once, and clients still have it in their lists


def read_sampling(fields: Fields, grammar: Grammar | None, tokenize: Tokenize, n_vocab: int) -> Sampling:
    """The fields as `Sampling`; what is absent has llama-server's default.

    Raises:
        ApiError: a field of the wrong type or out of range.
    """
    numbers: dict[str, Any] = {
        name: fields.number(name, getattr(DEFAULTS, name), *bounds) for name, bounds in NUMBERS.items()
    }
    integers: dict[str, Any] = {name: fields.integer(name, *bounds) for name, bounds in INTEGERS.items()}
    top_k = fields.integer("top_k", -1, INT32_MAX)
    seed = fields.integer("seed", -(2**63), 2**64 - 1)
    breakers = fields.strings("dry_sequence_breakers")
    if len(breakers) > BREAKERS_MAX:
        raise bad_request(
            f"dry_sequence_breakers are {len(breakers):,}, at most {BREAKERS_MAX} are taken", "dry_sequence_breakers"
        )
    return Sampling(
        **numbers,
        **{name: getattr(DEFAULTS, name) if value is None else value for name, value in integers.items()},
        top_k=DEFAULTS.top_k if top_k is None else max(top_k, 0),
        seed=None if seed is None or seed % 2**32 == RANDOM_SEED else seed,
        logit_bias=tuple(_logit_bias(fields, tokenize, n_vocab)),
        ignore_eos=fields.boolean("ignore_eos", False),
        samplers=_samplers(fields),
        dry_sequence_breakers=DEFAULTS.dry_sequence_breakers
        if fields.get("dry_sequence_breakers") is None
        else breakers,
        grammar=grammar,
        post_sampling_probs=fields.boolean("post_sampling_probs", False),
    )


def _samplers(fields: Fields) -> tuple[str, ...] | None:
    """Names in order, or a string with a letter for each; None where nothing is said."""
    given = fields.get("samplers")
    if given is None:
        return None
    if isinstance(given, str | list) and len(given) > SAMPLERS_MAX:
        raise bad_request(f"samplers are {len(given):,}, at most {SAMPLERS_MAX} are taken", param="samplers")
    if not isinstance(given, str):
        return tuple(_spelled(name) for name in fields.strings("samplers") if name not in RETIRED)
    letters = fields.string("samplers")
    unknown = [letter for letter in letters if letter not in LETTERS]
    if unknown:
        raise bad_request(f"samplers has {unknown[0]!r}, expected letters of {''.join(LETTERS)}", param="samplers")
    return tuple(LETTERS[letter] for letter in letters)


def _spelled(name: str) -> str:
    found = SPELLINGS.get(name.lower().replace("-", "_"))
    if found is None:
        raise bad_request(
            f"samplers has {name!r:.32}, expected names of {', '.join(LETTERS.values())}", param="samplers"
        )
    return found


def _logit_bias(fields: Fields, tokenize: Tokenize, n_vocab: int) -> Iterator[tuple[int, float]]:
    """OpenAI's object {token: bias}, or llama-server's array of [token or text, bias]; false bans a token.

    A text biases each of its tokens.
    """
    value = fields.get("logit_bias")
    if value is None:
        return
    if isinstance(value, dict):
        pairs: list[Any] = [[int(key) if _is_id(key) else key, bias] for key, bias in value.items()]
    elif isinstance(value, list):
        pairs = value
    else:
        raise fields.wrong("logit_bias", "an object or an array of pairs")
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise bad_request(f"logit_bias has {pair!r:.32}, expected pairs of a token and a bias", param="logit_bias")
        token, bias = pair
        for each in _tokens(token, tokenize, n_vocab):
            yield each, _bias(bias)


def _tokens(token: object, tokenize: Tokenize, n_vocab: int) -> tuple[int, ...]:
    if isinstance(token, str):
        return tokenize(token)
    if type(token) is not int or not 0 <= token < n_vocab:
        raise _wrong(f"{token!r:.32}", f"token ids from 0 to {n_vocab - 1}, or texts")
    return (token,)


def _bias(bias: object) -> float:
    if bias is False:
        return BANNED
    if type(bias) not in (int, float) or not isinstance(bias, int | float) or not -1e6 <= bias <= 1e6:
        raise _wrong(f"the bias {bias!r:.32}", "a number, or false to ban the token")
    return float(bias)


def _wrong(found: str, expected: str) -> ApiError:
    return bad_request(f"logit_bias has {found}, expected {expected}", param="logit_bias")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
