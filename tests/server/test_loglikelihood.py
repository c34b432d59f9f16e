"""Evaluation over HTTP: lm-eval's log-likelihoods through /v1/completions are the reference engine's."""

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import refengine
from ggufphys.embedded import MODEL
from ggufphys.params import Params
from server.app import create_app
from server.config import ServerConfig
from server.engine.protocol import EngineStatus
from server.engine.worker.supervised import SupervisedEngine
from server.net.http import HttpServer
from tests.server.chain_model import write_mixing_model
from tests.server.scores import scored

TIMEOUT_S = 120
CLOSE = 1e-3
# F32 throughout: with F16 llama.cpp's two kernels of attention differ by 2e-4 a token between themselves.
PARAMS = Params(n_ctx=2048, n_seq_max=4, n_threads=2, n_outputs_max=16, type_k="f32", type_v="f32", flash_attn="off")
# Beginnings and what goes on from them: short and long, one token and many, several from one beginning.
CASES = [
    ("the quick", " brown"),
    ("the quick", " fox jumps over a lazy dog"),
    ("the quick brown fox jumps over a lazy dog and runs away", " from here"),
    ("a", " fox" * 40),
    ("and runs", " away\nfrom here"),
    ("the lazy dog " * 20, "jumps"),
    ("Créer une queue", " d’objets — 队列"),
    ("x", "y"),
]
ENDING = "def main(argv):\n    parser = argparse.ArgumentParser(description=__doc__)\n"  # the embedded model ends here


def test_through_the_api(tmp_path: Path) -> None:
    """With F32 weights every sum of log-probabilities is within 1e-3 of the reference engine's, and greedy as there."""
    path = write_mixing_model(tmp_path / "mixing.gguf")
    reference = refengine.load(path, type_k="f32", type_v="f32", flash_attn=False)
    with serving(path) as (server, engine):

        def ask(case: tuple[str, str]) -> tuple[tuple[int, ...], int, float, bool]:
            # lm-eval's TemplateLM._encode_pair: both together, so that the border's tokens are those of the text.
            whole, context = engine.tokenize("".join(case)), engine.tokenize(case[0])
            return whole, len(context), *loglikelihood(post(server, whole), len(context))

        with ThreadPoolExecutor(len(CASES)) as pool:  # all at once, as `num_concurrent` has it
            found = list(pool.map(ask, CASES))
    for (whole, n_context, total, is_greedy), case in zip(found, CASES, strict=True):
        expected, is_likeliest = scored(reference, whole, n_context)
        assert abs(total - expected) < CLOSE, case
        assert is_greedy == is_likeliest, case


def test_an_answer_that_ends_at_once() -> None:
    """The token that ends an answer has its entry, too: lm-eval drops one at the end, whichever that is."""
    with serving(MODEL) as (server, engine):
        whole = engine.tokenize(ENDING)
        choice = post(server, whole)
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == ENDING
    lists = choice["logprobs"]
    assert {len(lists[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")} == {
        len(whole) + 1
    }  # fmt: skip


def loglikelihood(choice: dict[str, Any], n_context: int) -> tuple[float, bool]:
    """What lm-eval makes of an answer. Source: lm-eval 0.4.13 lm_eval/models/openai_completions.py, parse_logprobs."""
    lists = choice["logprobs"]
    of_tokens, tops = lists["token_logprobs"][n_context:-1], lists["top_logprobs"][n_context:-1]
    assert of_tokens
    return sum(of_tokens), all(of == max(top.values()) for of, top in zip(of_tokens, tops, strict=True))


def post(server: HttpServer, tokens: tuple[int, ...]) -> dict[str, Any]:
    """lm-eval's request. Source: the same, LocalCompletionsAPI._create_payload."""
    body = {"prompt": list(tokens), "model": "m", "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True,
            "seed": 1234}  # fmt: skip
    request = urllib.request.Request(
        f"{server.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        choice: dict[str, Any] = json.load(response)["choices"][0]
    return choice


@contextmanager
def serving(path: Path) -> Iterator[tuple[HttpServer, SupervisedEngine]]:
    """A model, served."""
    engine = SupervisedEngine(path, PARAMS)
    try:
        assert engine.wait_until_settled(TIMEOUT_S) is EngineStatus.READY
        app = create_app(ServerConfig(), engine)
        with HttpServer(app, host="127.0.0.1", port=0, max_streams=16, max_body_bytes=1 << 20) as server:
            yield server, engine
    finally:
        engine.close()
