"""POST /completion and /infill in llama-server's own shape.

Source: llama.cpp 0c1e570 tools/server/server-task.cpp, server_task_result_cmpl_final::to_json_non_oaicompat.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from flask import Blueprint, Response, request

from server.api.answers import Answers
from server.api.errors import ApiError
from server.api.infill import infill_tokens, read_infill
from server.api.logprobs import chat_token
from server.api.options import Options, read_options
from server.api.prompts import Prompt, read_prompts
from server.api.replies import MARKS, Shape, form_of, reply
from server.api.sampling_fields import INT32_MAX
from server.api.schema import Fields, read_body
from server.api.settings import generation_settings
from server.api.timings import Clock, prompt_progress, timings
from server.engine.events import Event, Finished, Piece, Progress, TokenInfo, Written
from server.engine.forms import Form
from server.service import Service

Json = dict[str, Any]
PromptsOf = Callable[[Options], list[Prompt]]
SLOT: Final = -1  # which slot an answer ran in is the engine's business


class NativeAnswers(Shape):
    """A `Shape`: an object an answer, or an array of them; `wanted`: the fields that are kept, by their paths."""

    named = False
    done = False

    def __init__(
        self, model: str, prompts: Sequence[Prompt], options: Options, *, n_probs: int | None, wanted: Sequence[str]
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._options = options
        self._n_probs = n_probs
        self._wanted = wanted
        n = len(prompts) * options.n
        self._texts: list[list[str]] = [[] for _ in range(n)]
        self._tokens: list[list[TokenInfo]] = [[] for _ in range(n)]
        self._n_tokens = [0] * n  # shown
        self._clocks = {i: Clock(len(self._prompt(i)[0])) for i in range(n if options.timings_per_token else 0)}
        self._finished: dict[int, Finished] = {}

    def take(self, number: int, event: Event) -> list[Json]:
        """An event as it is streamed."""
        match event:
            case Progress():
                at = number * self._options.n
                return [{**self._partial(at, ""), "prompt_progress": prompt_progress(event)}]
            case Piece():
                at = number * self._options.n + event.index
                self._texts[at].append(event.text)
                self._tokens[at] += event.tokens
                self._n_tokens[at] += len(event.tokens)
                more: Json = {"timings": self._clocks[at].piece(event)} if at in self._clocks else {}
                if self._n_probs is not None:
                    more["completion_probabilities"] = self._probabilities(event.tokens)
                return [{**self._partial(at, event.text), "tokens": [t.token for t in event.tokens], **more}]
            case Written():
                self._texts[number].append(event.text)
                self._n_tokens[number] = event.n_tokens
                return []
            case Finished():
                at = number * self._options.n + event.index
                self._finished[at] = event
                return [self._final(at, streamed=True)]
            case _:
                for at, clock in self._clocks.items():
                    if at // self._options.n == number:
                        clock.start(event)
                return []

    def form(self, number: int, index: int) -> Form | None:
        """An event is the same but for its text, its tokens and how many there have been."""
        at = number * self._options.n + index
        if at in self._clocks or self._n_probs is not None:
            return None
        more = {"tokens": MARKS["tokens"], "tokens_predicted": MARKS["n_tokens"]}
        return form_of({**self._partial(at, MARKS["text"]), **more}, n_before=self._n_tokens[at])

    def closing(self) -> list[Json]:
        """Nothing comes behind the last event."""
        return []

    def failed(self, error: ApiError) -> Json:
        """As an error is elsewhere."""
        return error.body()

    def document(self) -> Any:
        """One answer, or all in an array."""
        found = [self._final(at, streamed=False) for at in sorted(self._finished)]
        return found[0] if len(found) == 1 else found

    def _prompt(self, at: int) -> Prompt:
        return self._prompts[at // self._options.n]

    def _probabilities(self, tokens: Sequence[TokenInfo]) -> list[Json]:
        drawn = self._options.sampling.post_sampling_probs
        return [chat_token(token, drawn=drawn) for token in tokens]

    def _partial(self, at: int, text: str) -> Json:
        return {
            "index": at, "content": text, "tokens": [], "stop": False, "id_slot": SLOT,
            "tokens_predicted": self._n_tokens[at], "tokens_evaluated": len(self._prompt(at)[0]),
        }  # fmt: skip

    def _final(self, at: int, *, streamed: bool) -> Json:
        event, text = self._finished[at], "".join(self._texts[at])
        usage = event.usage
        shows_tokens = self._options.return_tokens and not streamed
        found: Json = {
            "index": at,
            "content": "" if streamed else text,
            "tokens": [t.token for t in self._tokens[at]] if shows_tokens else [],
            "id_slot": SLOT,
            "stop": True,
            "model": self._model,
            "tokens_predicted": usage.n_generated,
            "tokens_evaluated": usage.n_prompt,
            "generation_settings": generation_settings(self._options, self._n_probs),
            "prompt": self._prompt(at)[1],
            "has_new_line": "\n" in text,
            "truncated": event.truncated,
            "stop_type": stop_type(event),
            "stopping_word": event.stop,
            "tokens_cached": usage.n_prompt + max(usage.n_generated - 1, 0),
            "timings": timings(event),
        }
        if self._n_probs is not None and not streamed:
            found["completion_probabilities"] = self._probabilities(self._tokens[at])
        return _picked(found, self._wanted) if self._wanted else found


def stop_type(event: Finished) -> str:
    """Why it ended, in llama-server's words."""
    match event.reason:
        case "stop":
            return "word" if event.stop else "eos"
        case "length":
            return "limit"
        case _:
            return "none"


def blueprint(service: Service) -> Blueprint:
    """The endpoints."""
    routes = Blueprint("native_completion", __name__)

    @routes.post("/completion")
    @routes.post("/completions")
    def completion() -> Response:
        fields = read_body(request)
        return _reply(service, fields, lambda options: read_prompts(fields, service.engine))

    @routes.post("/infill")
    def infill() -> Response:
        infill_tokens(service.engine.info)  # llama-server says so first, whatever else is wrong
        fields = read_body(request)

        def prompts(options: Options) -> list[Prompt]:
            tokens = read_infill(fields, service.engine, n_predict=options.max_tokens or 0)
            return [Prompt(tokens, service.engine.detokenize(tokens))]

        return _reply(service, fields, prompts)

    return routes


def _reply(service: Service, fields: Fields, prompts_of: PromptsOf) -> Response:
    engine = service.engine
    options = read_options(fields, engine, supported=("response_fields",))
    n_probs = _n_probs(fields)
    prompts = prompts_of(options)
    asked = replace(options, return_tokens=True) if options.stream else options
    shape = NativeAnswers(options.model, prompts, options, n_probs=n_probs or None, wanted=_wanted(fields))
    answers = Answers(engine, [asked.request(p.tokens, spans=p.spans, n_logprobs=n_probs or None) for p in prompts])
    return reply(service, answers, shape, options)


def _wanted(fields: Fields) -> tuple[str, ...]:
    """Paths of the fields that are sent; an empty one, which editors ask for when they want nothing, leads nowhere."""
    found = fields.array("response_fields")
    if not all(isinstance(each, str) for each in found):
        raise fields.wrong("response_fields", "an array of strings")
    return tuple(found)


def _n_probs(fields: Fields) -> int | None:
    """`n_probs`, or `logprobs`, which OpenAI's clients send as true."""
    if fields.get("n_probs") is None and isinstance(fields.get("logprobs"), bool):
        return int(fields.boolean("logprobs", False))
    return fields.integer("n_probs" if fields.get("n_probs") is not None else "logprobs", 0, INT32_MAX)


def _picked(document: Json, paths: Sequence[str]) -> Json:
    """The values at paths such as `timings/predicted_n`, by them; paths that lead nowhere are left out."""
    found: Json = {}
    for path in paths:
        value: Any = document
        for key in path.split("/"):
            if not isinstance(value, dict) or key not in value:
                break
            value = value[key]
        else:
            found[path] = value
    return found
