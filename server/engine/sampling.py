"""How are tokens to be chosen? What a request may say of it, in llama-server's names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """A GBNF grammar that the answer must follow; its start is the rule `root`.

    `lazy`: only from where one of the trigger patterns (regular expressions; their first group, or else their match, is
    the grammar's beginning) or tokens comes.
    """

    text: str
    lazy: bool = False
    trigger_patterns: tuple[str, ...] = ()
    trigger_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; names and defaults are llama-server's, which change no logit where one means "off".

    `temperature` 0 is greedy, `top_k` 0 all tokens. `samplers` None: llama-server's order; empty: none at all.
    `post_sampling_probs`: what is told of probabilities is what all samplers left of them.
    Source: llama.cpp 0c1e570 common/common.h, common_params_sampling.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None  # None: another one each time
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64  # tokens the three penalties look back on; -1: the whole context
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64  # -1: the whole context
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9
    min_keep: int = 0
    samplers: tuple[str, ...] | None = None
    grammar: Grammar | None = None
    post_sampling_probs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Thoughts:
    """What a request says of them. `begun`: the prompt ends within them, else the answer may begin with them.

    `budget`: tokens that they may have (None: any number); behind these `closing` is said, which ends them. `marks`
    stand around them.
    """

    begun: bool
    budget: int | None
    closing: tuple[int, ...]
    marks: tuple[bytes, bytes] = (b"<think>", b"</think>")
