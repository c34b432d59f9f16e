"""Prompts with expected answers: how often is a model's answer exactly that, and is another one worse?

A line of the file is an object: `prompt` (or `messages`, for chat), `expected` (a text, or several that will do), and
as one likes `id`, `max_tokens` (64), `stop`. Every model answers over HTTP, likeliest tokens only: any server that
speaks OpenAI's API by its address, a file through our own.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.load.address import base_url
from bench.quality.figures import Interval, drawn_interval
from bench.quality.rows import Candidate
from bench.running.served import ServingError, served
from ggufphys.report.inspection import SCHEMA_VERSION, dumps, table
from ggufphys.report.progress import Steps
from ggufphys.units import parse_json, read_text

AT_ONCE: Final = 4
TIMEOUT_S: Final = 600.0
LIST_S: Final = 30.0
N_CTX: Final = 4096  # of each request, through our server
FIELDS: Final = ("id", "prompt", "messages", "expected", "max_tokens", "stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A prompt, and the answers that are right."""

    id: str
    asked: Mapping[str, Any]
    expected: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether an answer is one of those that are expected, but for blanks around it."""
        return answer.strip() in {text.strip() for text in self.expected}


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a file.

    Raises:
        ValueError: a line is no task: which, and what was expected.
        OSError: it cannot be read.
    """
    lines = read_text(path).removeprefix("\ufeff").split("\n")  # other line ends may stand in texts
    tasks = [_task(line, f"{path}, line {i}", i) for i, line in enumerate(lines, 1) if line.strip()]
    if not tasks:
        raise ValueError(f'{path}: empty, expected lines such as {{"prompt": "2 + 2 =", "expected": "4"}}')
    return tasks


def _task(line: str, where: str, number: int) -> Task:
    try:
        fields = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f'{where} is {line[:40]!r}, expected an object: {{"prompt": "2 + 2 =", "expected": "4"}}')
    unknown = next((name for name in fields if name not in FIELDS), None)
    if unknown is not None:
        raise ValueError(f"{where}: unknown field {unknown!r}, expected {', '.join(FIELDS)}")
    if ("prompt" in fields) == ("messages" in fields):
        raise ValueError(f"{where}: expected either prompt or messages")
    if not isinstance(fields.get("prompt", ""), str) or not isinstance(fields.get("messages", []), list):
        raise ValueError(f"{where}: expected prompt to be text, messages a list")
    expected = fields.get("expected")
    several = [expected] if isinstance(expected, str) else expected
    if not isinstance(several, list) or not several or not all(isinstance(text, str) for text in several):
        raise ValueError(f"{where}: expected is {expected!r}, expected text or a list of texts")
    _check(fields, where)
    asked = {name: fields[name] for name in ("prompt", "messages", "max_tokens", "stop") if name in fields}
    return Task(id=str(fields.get("id", number)), asked={"max_tokens": 64, **asked}, expected=tuple(several))


def _check(fields: Mapping[str, Any], where: str) -> None:
    """Refuse what every server would: the first of several models would have answered all else by then."""
    messages, n, stop = fields.get("messages", [{}]), fields.get("max_tokens", 1), fields.get("stop", "")
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise ValueError(f'{where}: messages is {messages!r}, expected objects: [{{"role": "user", "content": "hi"}}]')
    if type(n) is not int or n < 1:
        raise ValueError(f"{where}: max_tokens is {n!r}, expected a whole number above 0")
    if not isinstance(stop, str) and not (isinstance(stop, list) and all(isinstance(text, str) for text in stop)):
        raise ValueError(f"{where}: stop is {stop!r}, expected text or a list of texts")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is there already."""

    url: str

    engine: None = None

    @property
    def name(self) -> str:
        """The server's address."""
        return self.url


def suite_results(models: Sequence[Candidate | Server], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """What each model answered, how often that was right, and whether it is worse or better than the first.

    Raises:
        ServingError: a server does not come up, or refuses a request.
    """
    results: list[dict[str, Any]] = []
    for model in models:
        with (
            _reached(model) as url,
            Steps(f"asking {model.name}", total=len(tasks), unit="prompts", ticks=True) as steps,
        ):
            answers, name = [], _first_model(url)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for answer in pool.map(lambda task, to=url, by=name: _answer(to, by, task), tasks):
                    answers.append(answer)
                    steps.advance()
        right = [task.is_right(answer) for task, answer in zip(tasks, answers, strict=True)]
        base = results[0] if results else None
        results.append(
            {
                "model": model.name,
                "engine": model.engine,
                "n": len(tasks),
                "exact": float(np.mean(right)),
                "exact_ci95": _interval(np.array(right, np.float64)),
                "against_base": None if base is None else compared([a["right"] for a in base["answers"]], right),
                "answers": [
                    {"id": task.id, "expected": list(task.expected), "answer": answer, "right": is_right}
                    for task, answer, is_right in zip(tasks, answers, right, strict=True)
                ],
            }
        )
    return results


def compared(base: Sequence[bool], other: Sequence[bool]) -> dict[str, Any]:
    """The share of right answers beside the base's, prompt by prompt: no verdict where the interval spans zero."""
    differences = np.array(other, np.float64) - np.array(base, np.float64)
    interval = _interval(differences)
    low, high = interval or (-1.0, 1.0)
    verdict = "better" if low > 0 else "worse" if high < 0 else None
    return {"difference": float(differences.mean()), "difference_ci95": interval, "verdict": verdict}


def _interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Interval | None:
    return drawn_interval(values[:, None], lambda means: means[:, 0])


@contextmanager
def _reached(model: Candidate | Server) -> Iterator[str]:
    if isinstance(model, Server):
        yield base_url(model.url)
        return
    several = ("-c", str(AT_ONCE * N_CTX), "-np", str(AT_ONCE))
    alone = ("-c", str(N_CTX), "--engine", "numpy")  # it runs one sequence, the other requests wait
    flags = alone if model.engine == "refengine" else several
    with served(model.path, *flags, "-ctk", model.type_k, "-ctv", model.type_v) as url:
        yield base_url(url)


def _key() -> dict[str, str]:
    """What a server that wants a key is sent: that of `bench load`."""
    key = os.environ.get("OPENAI_API_KEY", "")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _first_model(url: str) -> str:
    """The first model that a server lists: several servers want its name in each request. Empty if it lists none."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/models", headers=_key()), timeout=LIST_S
        ) as response:
            return str(json.load(response)["data"][0]["id"] or "")
    except (OSError, ValueError, LookupError, TypeError):  # a server that is not there says so at the first prompt
        return ""


def _answer(url: str, model: str, task: Task) -> str:
    chat = "messages" in task.asked
    body = {**task.asked, "model": model, "temperature": 0, "stream": False}
    request = urllib.request.Request(
        f"{url}/{'chat/completions' if chat else 'completions'}",
        data=json.dumps(body).encode(), headers={"Content-Type": "application/json", **_key()},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            choice = json.load(response)["choices"][0]
            return str((choice["message"].get("content") if chat else choice["text"]) or "")
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        raise ServingError(f"{url} refused prompt {task.id} with {error.code}: {said}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServingError(f"{url} gave no answer to prompt {task.id}: {error!r}") from error


def as_json(results: Sequence[dict[str, Any]]) -> str:
    """The results as one JSON document."""
    return dumps({"schema_version": SCHEMA_VERSION, "suite": list(results)})


def _shown(result: dict[str, Any]) -> str:
    return str(result["model"]) + (" (refengine)" if result["engine"] == "refengine" else "")


def as_text(results: Sequence[dict[str, Any]]) -> str:
    """A table, and side by side what not all models answered alike."""
    rows = []
    for result in results:
        beside = result["against_base"] or {}
        low, high = beside.get("difference_ci95") or (None, None)
        rows.append(
            (
                _shown(result),
                f"{result['exact']:.1%}",
                "" if not beside else f"{beside['difference']:+.1%}",
                "" if low is None else f"{low:+.1%} to {high:+.1%}",
                "" if not beside else beside["verdict"] or "no difference shown",
            )
        )
    header = ("model", "exact", "beside the first", "95 %", "")
    lines = [f"{results[0]['n']} prompts", "", *table(header, rows, right=(1, 2, 3))]
    for answers in zip(*(result["answers"] for result in results), strict=True):
        if len({answer["answer"] for answer in answers}) > 1:
            lines += ["", f"prompt {answers[0]['id']}, expected {' or '.join(map(repr, answers[0]['expected']))}"]
            lines += [
                f"  {'right' if answer['right'] else 'wrong'}  {_shown(result)}: {answer['answer']!r}"
                for result, answer in zip(results, answers, strict=True)
            ]
    return "\n".join(lines) + "\n"
