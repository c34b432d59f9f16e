"""How is the next token chosen from a row of logits? A llama_sampler chain for each answer; greedy ones need none.

Source: llama.cpp 0c1e570 common/sampling.cpp, common_sampler_init (what comes in which order), common_sampler_sample
(how a grammar is asked).
"""

import ctypes
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from server.engine.llama.handles import Context
from server.engine.llama.rows import Rows
from server.engine.llama.vocab import Vocab
from server.engine.runner import Odds
from server.engine.sampling import Grammar, Sampling

GREEDY_BELOW: Final = 1e-5  # dividing by less can overflow float32
MIROSTAT_M: Final = 100
NOTHING_ALLOWED: Final = (
    "the grammar allows none of the model's tokens here but such as logit_bias bans, not even one that ends the answer"
)
DEFAULT_ORDER: Final = (
    "penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature",
)  # fmt: skip
CANDIDATE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


@dataclass(slots=True)
class Chains:
    """How many of llama.cpp's chains there are, and were at most: each keeps a vocabulary of candidates.

    Source: llama.cpp 0c1e570 src/llama-sampler.cpp, llama_sampler_sample (chain->cur).
    """

    n: int = 0
    n_max: int = 0

    def add(self) -> None:
        """Count one chain more."""
        self.n += 1
        self.n_max = max(self.n, self.n_max)


class Sampler:
    """Chooses the tokens of one answer; implements `Chooser`.

    top_k comes before top_p because sorting a whole vocabulary of 152k costs 8 ms a token. A chain always ends in
    greedy, dist, mirostat or adaptive_p: llama_sampler_sample aborts on one that selects nothing.

    Args:
        sampling: what is asked for.
        context: whose logits are read.
        vocab: the model's.
        rows: the logits of the last step.
        chains: counts those that there are.

    Raises:
        ValueError: the grammar cannot be parsed, or a sampler has an unknown name.
    """

    def __init__(
        self, sampling: Sampling, context: Context, vocab: Vocab, rows: Rows, chains: Chains | None = None
    ) -> None:
        self._api = context.api
        self._context = context
        self._vocab = vocab
        self._rows = rows
        self._chains = chains or Chains()
        self._chain: Any = None
        self._grammar: Any = None
        self.seed = random.getrandbits(32) if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        self.n_remembered = 0
        self._keeps_odds = sampling.post_sampling_probs
        self._odds: Odds = ()
        bias = _biases(sampling, vocab)
        self._biased = np.array(list(bias), np.int32), np.array(list(bias.values()), np.float32)
        self._banned = self._biased[0][self._biased[1] == -np.inf]
        if len(self._banned) >= vocab.n_vocab:
            raise ValueError("logit_bias bans every token that the model has")
        # Tokens without which the row's likeliest is that of the biased one, too; None: others may have overtaken it.
        self._lowered = frozenset(bias) if all(value <= 0 for value in bias.values()) else None
        if sampling.grammar is None and _is_greedy(sampling) and not _looks_back(sampling):
            return  # the row's maximum
        if sampling.grammar is not None:
            self._grammar = _grammar(self._api, vocab, sampling.grammar)
        self._chain = self._api.llama_sampler_chain_init(self._api.llama_sampler_chain_default_params())
        self._chains.add()
        try:
            self._build(sampling, bias)
        except BaseException:
            self.close()
            raise

    def _build(self, sampling: Sampling, bias: dict[int, float]) -> None:
        api, n_vocab = self._api, self._vocab.n_vocab
        if bias:
            native = (api.llama_logit_bias * len(bias))(*bias.items())
            self._add(api.llama_sampler_init_logit_bias(n_vocab, len(bias), native))
        if sampling.mirostat and not _is_greedy(sampling):
            self._add(api.llama_sampler_init_temp(sampling.temperature))
            tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
            if sampling.mirostat == 1:
                self._add(api.llama_sampler_init_mirostat(n_vocab, self.seed, tau, eta, MIROSTAT_M))
            else:
                self._add(api.llama_sampler_init_mirostat_v2(self.seed, tau, eta))
            return
        order = DEFAULT_ORDER if sampling.samplers is None else sampling.samplers
        for name in order:
            if name not in _BUILDERS and name != "adaptive_p":
                raise ValueError(f"unknown sampler {name!r}, expected one of {', '.join(_BUILDERS)}, adaptive_p")
        if _is_greedy(sampling):
            order = tuple(name for name in order if name in ("penalties", "dry"))
        for name in order:
            if name in _BUILDERS:
                _BUILDERS[name](self, sampling)
        if _is_greedy(sampling):
            self._add(api.llama_sampler_init_greedy())
        elif "adaptive_p" in order and sampling.adaptive_target >= 0:
            self._add(api.llama_sampler_init_adaptive_p(sampling.adaptive_target, sampling.adaptive_decay, self.seed))
        else:
            self._add(api.llama_sampler_init_dist(self.seed))

    def _add(self, sampler: int) -> None:
        self._api.llama_sampler_chain_add(self._chain, sampler)

    def _back(self, last_n: int) -> int:
        """How far a sampler looks back; the prompt's end is shown to those that do.

        No farther than there can be tokens: llama.cpp keeps room for as many as it is told.
        """
        n_ctx = self._context.n_ctx_seq
        last_n = n_ctx if last_n < 0 else min(last_n, n_ctx)
        self.n_remembered = max(self.n_remembered, last_n)
        return last_n

    def _penalties(self, s: Sampling) -> None:
        if _penalises(s):
            self._add(
                self._api.llama_sampler_init_penalties(
                    self._vocab.n_vocab, self._back(s.repeat_last_n), s.repeat_penalty, s.frequency_penalty,
                    s.presence_penalty,
                )
            )  # fmt: skip

    def _dry(self, s: Sampling) -> None:
        if _is_dry(s):
            breakers = (ctypes.c_char_p * len(s.dry_sequence_breakers))(*map(str.encode, s.dry_sequence_breakers))
            self._add(
                self._api.llama_sampler_init_dry(
                    self._vocab.pointer, s.dry_multiplier, s.dry_base, s.dry_allowed_length,
                    self._back(s.dry_penalty_last_n), breakers, len(breakers),
                )
            )  # fmt: skip

    def _top_n_sigma(self, s: Sampling) -> None:
        if s.top_n_sigma > 0:
            self._add(self._api.llama_sampler_init_top_n_sigma(s.top_n_sigma))

    def _top_k(self, s: Sampling) -> None:
        if 0 < s.top_k < self._vocab.n_vocab:
            self._add(self._api.llama_sampler_init_top_k(max(s.top_k, s.min_keep)))

    def _typ_p(self, s: Sampling) -> None:
        if s.typical_p < 1:
            self._add(self._api.llama_sampler_init_typical(s.typical_p, max(s.min_keep, 1)))

    def _top_p(self, s: Sampling) -> None:
        if s.top_p < 1:
            self._add(self._api.llama_sampler_init_top_p(s.top_p, max(s.min_keep, 1)))

    def _min_p(self, s: Sampling) -> None:
        if s.min_p > 0:
            self._add(self._api.llama_sampler_init_min_p(s.min_p, max(s.min_keep, 1)))

    def _xtc(self, s: Sampling) -> None:
        if s.xtc_probability > 0 and s.xtc_threshold <= 0.5:
            self._add(
                self._api.llama_sampler_init_xtc(s.xtc_probability, s.xtc_threshold, max(s.min_keep, 1), self.seed)
            )

    def _temperature(self, s: Sampling) -> None:
        self._add(self._api.llama_sampler_init_temp_ext(s.temperature, s.dynatemp_range, s.dynatemp_exponent))

    def _infill(self, s: Sampling) -> None:
        del s
        self._add(self._api.llama_sampler_init_infill(self._vocab.pointer))

    # Use.

    def remember(self, tokens: Sequence[int]) -> None:
        """Let the penalties see the prompt, as llama-server does. A grammar is about the answer alone."""
        for token in tokens[len(tokens) - min(len(tokens), self.n_remembered) :]:
            self._api.llama_sampler_accept(self._chain, token)

    def sample(self, row: int) -> int | None:
        """Choose a token from a row of logits, and remember it; None when they are no numbers.

        A NaN (overflow in a broken model) would make llama.cpp's sorting undefined, so the row's maximum is looked at
        first.
        """
        best = self._rows.best(row)
        if self._chain is None and (self._lowered is None or best in self._lowered):
            best = self._likeliest(row)
        if best is None or self._chain is None:
            self._odds = () if best is None else ((best, 1.0),)
            return best
        if self._grammar is None and not self._keeps_odds:
            return int(self._api.llama_sampler_sample(self._chain, self._context.pointer, self._rows.places[row]))
        token = self._sample_by_grammar(self._rows[row])
        self._api.llama_sampler_accept(self._chain, token)
        return token

    def odds(self) -> Odds:
        """What the last token was drawn from."""
        return self._odds

    def _likeliest(self, row: int) -> int | None:
        """The maximum, with biases: a chain of llama.cpp's would first write down the whole vocabulary."""
        logits, (tokens, values) = self._rows[row], self._biased
        kept = logits[tokens]
        logits[tokens] += values
        best = int(logits.argmax())
        found = best if np.isfinite(logits[best]) else None
        logits[tokens] = kept  # log-probabilities are read behind this
        return found

    def _sample_by_grammar(self, logits: Any) -> int:
        """Sample first and ask the grammar about that token alone; about all only if it says no: that takes long."""
        api = self._api
        token = self._choose(logits, grammar_first=False)
        if self._grammar is None:
            return token
        one = np.array([(token, 1.0, 0.0)], CANDIDATE)
        api.llama_sampler_apply(self._grammar, ctypes.byref(_array(api, one)))
        if one["logit"][0] == -np.inf:
            token = self._choose(logits, grammar_first=True)
        api.llama_sampler_accept(self._grammar, token)
        return token

    def _choose(self, logits: Any, *, grammar_first: bool) -> int:
        candidates = np.empty(len(logits), CANDIDATE)
        candidates["id"] = np.arange(len(logits), dtype=np.int32)
        candidates["logit"] = logits
        candidates["p"] = 0
        native = _array(self._api, candidates)
        if grammar_first:
            self._api.llama_sampler_apply(self._grammar, ctypes.byref(native))
            end = self._only_end(candidates["logit"])
            if end is not None:
                self._odds = ((end, 1.0),)
                return end
        self._api.llama_sampler_apply(self._chain, ctypes.byref(native))
        token = int(native.data[native.selected].id)
        if self._keeps_odds:
            self._odds = _odds(candidates[: native.size], token)
        return token

    def _only_end(self, logits: Any) -> int | None:
        """The token that ends the answer, where a grammar has left that alone, banned (`ignore_eos`) or not.

        llama.cpp would end its process over a token that is not allowed.

        Raises:
            ValueError: it has left nothing.
        """
        end = next((token for token in self._vocab.end_tokens if logits[token] > -np.inf), None)
        logits[self._banned] = -np.inf
        if logits.max() > -np.inf:
            return None
        if end is None:
            raise ValueError(NOTHING_ALLOWED)
        return end

    def close(self) -> None:
        """Free chain and grammar; a second call does nothing."""
        if self._chain is not None:
            self._chains.n -= 1
        for sampler in filter(None, (self._chain, self._grammar)):
            self._api.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


_BUILDERS: Final[dict[str, Callable[[Sampler, Sampling], None]]] = {
    "penalties": Sampler._penalties,
    "dry": Sampler._dry,
    "top_n_sigma": Sampler._top_n_sigma,
    "top_k": Sampler._top_k,
    "typ_p": Sampler._typ_p,
    "typical_p": Sampler._typ_p,
    "top_p": Sampler._top_p,
    "min_p": Sampler._min_p,
    "xtc": Sampler._xtc,
    "temperature": Sampler._temperature,
    "infill": Sampler._infill,
}


def _array(api: Any, candidates: Any) -> Any:
    """llama_token_data_array over a numpy array."""
    data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(api.llama_token_data))
    return api.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)


def _grammar(api: Any, vocab: Vocab, grammar: Grammar) -> Any:
    """A sampler of the grammar.

    Raises:
        ValueError: it is not GBNF, or has no root.
    """
    text = grammar.text.encode()
    if grammar.lazy:
        patterns = (ctypes.c_char_p * len(grammar.trigger_patterns))(*map(str.encode, grammar.trigger_patterns))
        tokens = (ctypes.c_int32 * len(grammar.trigger_tokens))(*grammar.trigger_tokens)
        made = api.llama_sampler_init_grammar_lazy_patterns(
            vocab.pointer, text, b"root", patterns, len(patterns), tokens, len(tokens)
        )
    else:
        made = api.llama_sampler_init_grammar(vocab.pointer, text, b"root")
    if not made:
        raise ValueError("the grammar cannot be parsed: llama.cpp expects GBNF with a rule named root")
    return made


def _odds(left: Any, token: int) -> Odds:
    """Candidates with their probabilities; samplers that only choose give none: what they choose is certain."""
    left = left[left["p"] > 0]
    if not len(left):
        return ((token, 1.0),)
    left = left[np.lexsort((left["id"], -left["p"]))]
    return tuple(zip(left["id"].tolist(), left["p"].tolist(), strict=True))


def _is_greedy(s: Sampling) -> bool:
    """Whether the likeliest token is taken, whatever else is asked for."""
    is_cold = s.temperature < GREEDY_BELOW and (s.samplers is None or "temperature" in s.samplers)
    return is_cold and s.xtc_probability <= 0 and s.adaptive_target < 0


def _looks_back(s: Sampling) -> bool:
    return _penalises(s) or _is_dry(s)


def _is_dry(s: Sampling) -> bool:
    return s.dry_multiplier != 0 and s.dry_base >= 1 and s.dry_penalty_last_n != 0


def _penalises(s: Sampling) -> bool:
    strengths = (s.repeat_penalty, s.frequency_penalty, s.presence_penalty)
    return strengths != (1, 0, 0) and s.repeat_last_n != 0


def _biases(sampling: Sampling, vocab: Vocab) -> dict[int, float]:
    """Token to what is added to its logit. The model's suppressed tokens win over the request's wishes."""
    bias = {token: value for token, value in sampling.logit_bias if 0 <= token < vocab.n_vocab}
    if sampling.ignore_eos:
        bias.update(dict.fromkeys(vocab.end_tokens, -math.inf))
    bias.update(dict.fromkeys(vocab.suppressed_tokens, -math.inf))
    return bias
