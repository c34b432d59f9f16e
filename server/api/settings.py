"""What llama-server calls `generation_settings`: how an answer's tokens were chosen, in its names.

Source: llama.cpp 0c1e570 tools/server/server-task.cpp, task_params::to_json.
"""

from typing import Any, Final

from server.api.options import Options
from server.engine.sampling import Sampling

Json = dict[str, Any]
RANDOM: Final = 0xFFFFFFFF
ORDER: Final = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
NUMBERS: Final = (
    "temperature", "dynatemp_range", "dynatemp_exponent", "top_k", "top_p", "min_p", "top_n_sigma", "xtc_probability",
    "xtc_threshold", "typical_p", "repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "mirostat", "mirostat_tau",
    "mirostat_eta", "adaptive_target", "adaptive_decay", "min_keep", "ignore_eos",
)  # fmt: skip
# What is never otherwise here.
FIXED: Final[Json] = {
    "n_keep": 0, "n_discard": 0, "grammar_lazy": False, "grammar_triggers": [], "preserved_tokens": [],
    "chat_format": "Content-only", "reasoning_format": "deepseek", "reasoning_in_content": False,
    "generation_prompt": "", "backend_sampling": False,
}  # fmt: skip


def sampling_settings(sampling: Sampling) -> Json:
    """How tokens are sampled, with `seed` as llama-server writes a random one."""
    return {
        "seed": RANDOM if sampling.seed is None else sampling.seed % 2**32,
        **{name: getattr(sampling, name) for name in NUMBERS},
        "dry_sequence_breakers": list(sampling.dry_sequence_breakers),
        "logit_bias": [{"token": token, "bias": _finite(bias)} for token, bias in sampling.logit_bias],
        "grammar": "" if sampling.grammar is None else sampling.grammar.text,
        "samplers": list(ORDER if sampling.samplers is None else sampling.samplers),
        "post_sampling_probs": sampling.post_sampling_probs,
    }


def generation_settings(options: Options, n_probs: int | None) -> Json:
    """How a request's answers were generated."""
    limit = -1 if options.max_tokens is None else options.max_tokens
    return {
        **sampling_settings(options.sampling), "stop": list(options.stop), "max_tokens": limit, "n_predict": limit,
        "lora": [{"id": number, "scale": scale} for number, scale in options.adapters or ()],
        "speculative.types": _types(options.guesses),
        "n_probs": n_probs or 0, "stream": options.stream, "timings_per_token": options.timings_per_token, **FIXED,
    }  # fmt: skip


def _types(guesses: tuple[str, ...]) -> str:
    return ",".join(guesses) or "none"


def _finite(bias: float) -> float | None:
    return bias if abs(bias) != float("inf") else None
