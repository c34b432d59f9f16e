"""POST /v1/completions: go on from texts or from tokens."""

from collections.abc import Sequence
from typing import Final

from flask import Blueprint, Response, request

from server.api.answers import Answers
from server.api.choices import Choice, Choices, Json, Kind, everything
from server.api.errors import bad_request
from server.api.infill import infill_tokens, middle
from server.api.logprobs import LegacyLogprobs, joined
from server.api.options import N_MAX, read_options
from server.api.prompts import Prompt, read_prompts
from server.api.replies import reply
from server.api.sampling_fields import INT32_MAX
from server.api.schema import Fields, read_body
from server.engine.events import Finished, Piece, PromptScores, TokenInfo
from server.engine.protocol import Engine
from server.service import Service

KIND: Final = Kind(id_prefix="cmpl-", whole="text_completion", chunk="text_completion", usage_in_last=True)


class Completion:
    """OpenAI's text_completion; `echoed` is the prompt's text if it is to be shown, and then its tokens' scores too."""

    def __init__(self, index: int, *, echoed: str | None, logprobs: bool, with_tokens: bool = False) -> None:
        self.index = index
        self.echoed = echoed
        self.texts: list[str] = []
        self.parts: list[Json] = []
        self.lists = LegacyLogprobs() if logprobs else None
        self._with_tokens = with_tokens
        self._tokens: list[int] = []
        self._hidden = 0  # tokens of the prompt that its text does not show

    def begin(self, first: TokenInfo, n_hidden: int) -> None:
        """The prompt's first token, which has no score; `n_hidden` tokens were put in front of its text."""
        self._hidden = n_hidden
        if self.lists is not None and self.echoed is not None:
            self.parts.append(self.lists.lists([first], shown=not n_hidden))

    def opening(self) -> list[Json]:
        """The prompt, where it is echoed."""
        if self.echoed is None:
            return []
        lists = joined(self.parts) if self.lists is not None else None
        return [self._choice(self.echoed, lists, None)]

    def empty(self) -> Json:
        """No text yet."""
        return self._choice("", None, None)

    def scores(self, event: PromptScores) -> None:
        """Kept, if the prompt is shown."""
        if self.lists is None or self.echoed is None:
            return
        for i, token in enumerate(event.tokens, event.start):
            if i:  # the first is there
                self.parts.append(self.lists.lists([token], shown=i >= self._hidden))

    def piece(self, event: Piece) -> list[Json]:
        """A piece of text."""
        self.texts.append(event.text)
        tokens = [each.token for each in event.tokens]
        self._tokens += tokens
        lists = self._of_answer(event.tokens)
        if lists is not None:
            self.parts.append(lists)
        return [self._choice(event.text, lists, None, tokens)]

    def plain(self, text: str) -> Json | None:
        """Without scores and tokens."""
        return None if self.lists is not None or self._with_tokens else self._choice(text, None, None)

    def last(self, event: Finished) -> list[Json]:
        """Why it ended."""
        return [self._choice("", None, event.reason)]

    def whole(self, event: Finished) -> Json:
        """The whole choice."""
        lists = joined(self.parts) if self.lists is not None else None
        return self._choice((self.echoed or "") + "".join(self.texts), lists, event.reason, self._tokens)

    def _of_answer(self, tokens: Sequence[TokenInfo]) -> Json | None:
        if self.lists is None:
            return None
        if self.echoed is not None and not self.lists.offset:
            self.lists.offset = len(self.echoed)
        return self.lists.lists(tokens)

    def _choice(self, text: str, lists: Json | None, reason: str | None, tokens: Sequence[int] = ()) -> Json:
        shown = {"tokens": list(tokens)} if self._with_tokens else {}
        return {"index": self.index, "text": text, "logprobs": lists, "finish_reason": reason, **shown}


def blueprint(service: Service) -> Blueprint:
    """The endpoint, under OpenAI's path."""
    routes = Blueprint("completions", __name__)

    @routes.post("/v1/completions")
    def completions() -> Response:
        fields = read_body(request)
        engine = service.engine
        options = read_options(fields, engine)
        echo = fields.boolean("echo", False)
        prompts = _with_suffix(fields, read_prompts(fields, engine), engine, echo=echo)
        logprobs = read_logprobs(fields)
        best_of = _best_of(fields, options.n, stream=options.stream)
        n = max(best_of, options.n)
        scored = logprobs if logprobs is not None else 0 if best_of else None
        requests = [
            # Where the prompt's tokens are listed, the one that ends the answer is, too: lm-eval counts on it.
            options.request(
                p.tokens,
                spans=p.spans,
                n=n,
                n_logprobs=scored,
                n_prompt_logprobs=logprobs if echo else None,
                show_end=echo,
            )
            for p in prompts
        ]
        choices: list[Choice] = []
        for i, (tokens, text, spans) in enumerate(prompts):
            first, n_hidden = None, 0
            if echo:
                if spans:
                    raise bad_request("echo shows prompts as text, and this one has images or sounds", param="echo")
                first = TokenInfo(token=tokens[0], piece=engine.pieces(tokens[:1])[0])
                n_hidden = int(_is_in_front(engine, first, text))
            for j in range(n):
                choice = Completion(
                    i * n + j, echoed=text if echo else None, logprobs=scored is not None,
                    with_tokens=options.return_tokens,
                )  # fmt: skip
                if first is not None:
                    choice.begin(first, n_hidden)
                choices.append(choice)
        shape = Choices(
            KIND, options.model, choices, n=n, include_usage=options.include_usage,
            timed=[len(p.tokens) for p in prompts] if options.timings_per_token else [],
            keep=(lambda found: _best(found, n, options.n, logprobs is not None)) if best_of else everything,
        )  # fmt: skip
        return reply(service, Answers(engine, requests), shape, options)

    return routes


def read_logprobs(fields: Fields) -> int | None:
    """How many likely tokens to show beside each; `n_probs` is llama-server's name. None: none, and no scores."""
    value = fields.get("logprobs")
    if isinstance(value, bool):
        return (fields.integer("top_logprobs", 0, INT32_MAX) or 0) if value else None
    found = fields.integer("logprobs", 0, INT32_MAX)
    return found if found is not None else fields.integer("n_probs", 0, INT32_MAX) or None


def _with_suffix(fields: Fields, prompts: list[Prompt], engine: Engine, *, echo: bool) -> list[Prompt]:
    """The prompts, with `suffix` behind what is to be written."""
    suffix = fields.string("suffix")
    if not suffix:
        return prompts
    found = infill_tokens(engine.info, "suffix")
    if any(p.spans for p in prompts):
        raise bad_request("suffix goes with text alone, and the prompt has images or sounds", param="suffix")
    if echo:
        raise bad_request("echo shows prompts as they are, and with a suffix they are not: send one", param="echo")
    after = engine.tokenize(suffix, add_special=False, parse_special=False)
    return [Prompt(middle(found, tokens, after), text) for tokens, text, _ in prompts]


def _is_in_front(engine: Engine, first: TokenInfo, text: str) -> bool:
    """Did tokenizing put the first token before the text? BOS, which the text does not show."""
    bos = engine.info.bos_text
    return engine.info.adds_bos and bool(bos) and not text.startswith(bos) and first.piece == bos.encode()


def _best_of(fields: Fields, n: int, *, stream: bool) -> int:
    """How many answers to choose the best of; 0 where all are shown."""
    best_of = fields.integer("best_of", 1, N_MAX)
    if best_of is None or best_of == n:
        return 0
    if best_of < n:
        raise bad_request(f"best_of is {best_of}, expected at least n, {n}", param="best_of")
    if stream:
        raise bad_request("best_of cannot be streamed: which answers are best is known at their end", param="best_of")
    return best_of


def _best(choices: list[Json], of: int, n: int, show: bool) -> list[Json]:
    """Of each prompt's answers the likeliest, by the mean log-probability of their tokens."""
    kept: list[Json] = []
    for start in range(0, len(choices), of):
        group = sorted(choices[start : start + of], key=_mean_logprob, reverse=True)[:n]
        kept += group
    for index, choice in enumerate(kept):
        choice["index"] = index
        if not show:
            choice["logprobs"] = None
    return kept


def _mean_logprob(choice: Json) -> float:
    values = [value for value in choice["logprobs"]["token_logprobs"] if value is not None]
    return sum(values) / len(values) if values else 0.0
