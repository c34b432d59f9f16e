"""What is to be expected of a request, by the server's own rates: waiting, the first token, the last; and its plan."""

import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient

from ggufphys import open_gguf
from ggufphys.embedded import MODEL
from ggufphys.logs.lines import logged_buffers
from ggufphys.memory.attachments import Draft
from ggufphys.params import Device, Params
from ggufphys.speed import history
from server.accounts.footprint import REQUEST_BYTES, THREAD_BYTES
from server.accounts.forecast import Forecast, Rates
from server.accounts.growth import growth_of
from server.accounts.ledger import Ledger, Pids, account
from server.app import create_app, service_of
from server.config import ServerConfig
from server.engine.counters import Counters
from server.engine.errors import QueueFullError
from server.engine.events import Failed, Finished, Piece, Started, Timings, Usage
from server.engine.generation import Generation
from server.engine.request import GenerationRequest
from server.start.beforehand import prediction
from server.start.main import remember
from tests.server.fake_engine import ANSWER, FakeEngine, sse_data

RATES = Rates(prompt_per_s=100.0, decode_per_s=10.0, basis="predicted")


def asked(n_prompt: int, max_tokens: int | None, n: int = 1) -> GenerationRequest:
    return GenerationRequest(prompt=tuple(range(n_prompt)), max_tokens=max_tokens, n=n)


def over(n_prompt: int, n_generated: int, *, prompt_s: float, decode_s: float) -> Finished:
    return Finished(
        reason="stop",
        usage=Usage(n_prompt=n_prompt, n_cached=0, n_generated=n_generated),
        timings=Timings(queue_s=0.0, prompt_s=prompt_s, decode_s=decode_s),
    )


def say(generation: Generation, *events: Any) -> None:
    for event in events:
        generation.publish(event)
        generation.next_event(1)


def test_idle_server() -> None:
    """Nothing under way: no wait, and the times follow from the rates; without rates they are unknown."""
    outlook = Forecast(lambda: 2, RATES).outlook(asked(50, 11))

    assert (outlook.wait_s, outlook.ttft_s, outlook.total_s) == (0.0, 0.5, 1.5)
    unknown = Forecast(lambda: 2).outlook(asked(50, 11))
    assert (unknown.wait_s, unknown.ttft_s, unknown.rates) == (0.0, None, None)


def test_answers_alone_tell_whether_the_prediction_was_right() -> None:
    """Only what had the engine to itself, and was long enough, stands beside the predicted rate."""
    forecast = Forecast(lambda: 2, RATES)
    lone, short, one, other = (Generation(asked(100, None)) for _ in range(4))
    assert forecast.lone_rates is None
    for generation, n in ((lone, 21), (short, 3)):
        forecast.follow(generation)
        say(generation, Started(), over(100, n, prompt_s=0.5, decode_s=1.0))
    forecast.follow(one)
    forecast.follow(other)
    for generation in (one, other):
        say(generation, Started(), over(100, 101, prompt_s=0.5, decode_s=1.0))

    assert forecast.lone_rates == (10.0, 20.0)


def test_a_server_remembers_how_right_the_prediction_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was predicted and what came goes to the machine's history, once there was an answer by itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine = FakeEngine()
    app = create_app(ServerConfig(), engine, Ledger(predicted="no", base_bytes=0, pids=Pids(engine)), RATES)
    service = service_of(app)
    monkeypatch.setattr("server.start.main.late_share", lambda times: 0.05)
    remember(service, MODEL, Params())
    assert history.entries() == ()
    generation = Generation(asked(100, None))
    service.engine.forecast.follow(generation)
    say(generation, Started(), over(100, 21, prompt_s=0.5, decode_s=1.0))
    monkeypatch.setattr("server.start.main.late_share", lambda times: 0.4)
    remember(service, MODEL, Params())
    assert history.entries() == ()  # others had the processors: it says nothing about the prediction
    monkeypatch.setattr("server.start.main.late_share", lambda times: 0.05)
    remember(service, MODEL, Params())

    (entry,) = history.entries()
    assert (entry.quantity, entry.predicted, entry.measured) == ("served decode", 10.0, 20.0)
    assert entry.model.startswith(f"{MODEL.name}:")


def test_rates_are_measured() -> None:
    """After an answer the rates are its own, and those that are expected are as long as it was, or as asked."""
    forecast = Forecast(lambda: 1, RATES)
    generation = Generation(asked(100, None))
    forecast.follow(generation)
    say(generation, Started(), over(100, 21, prompt_s=0.5, decode_s=1.0))
    outlook = forecast.outlook(asked(100, None))

    assert outlook.rates == Rates(prompt_per_s=200.0, decode_per_s=20.0, basis="measured")
    assert outlook.n_generated == 21
    assert outlook.total_s == pytest.approx(0.5 + 1.0)
    assert forecast.outlook(asked(100, 5)).n_generated == 5


def test_waiting_for_a_place() -> None:
    """Places are free when answers are over: the wait is what the first of them has left, behind those that wait."""
    forecast = Forecast(lambda: 2, RATES)
    first, second, third = (Generation(asked(10, n)) for n in (20, 40, 10))
    for generation in (first, second):
        forecast.follow(generation)
        say(generation, Started(), *[Piece(text="a")] * 10)
    assert forecast.outlook(asked(1, 1)).wait_s == pytest.approx(1.0)  # ten tokens of the first
    assert forecast.place_s() == pytest.approx(1.0)
    forecast.follow(third)
    assert forecast.outlook(asked(1, 1)).wait_s == pytest.approx(1.0 + 0.1 + 1.0)  # then the third, all of it
    first.cancel()
    third.cancel()
    assert forecast.outlook(asked(1, 1)).wait_s == 0.0


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(engine: FakeEngine) -> FlaskClient:
    return create_app(ServerConfig(poll_s=0.01), engine, None, RATES).test_client()


def test_plan(client: FlaskClient, engine: FakeEngine) -> None:
    """The same body as a completion's: cells, times, whether now; nothing is generated."""
    plan = client.post("/v1/plan", json={"prompt": "abcde", "max_tokens": 11, "n": 2}).get_json()

    assert plan["n_prompt_tokens"] == 5
    assert plan["cells"]["needed_at_most"] == 5 + 2 * 10
    assert (plan["admitted"], plan["wait_s"], plan["basis"]) == ("now", 0.0, "predicted")
    assert plan["ttft_s"] == pytest.approx(0.05)
    assert plan["tokens_per_second"] == 10.0
    assert engine.requests == []
    chat = client.post("/v1/plan", json={"messages": [{"role": "user", "content": "hi"}]}).get_json()
    assert chat["n_prompt_tokens"] == len("[user]hi")
    assert chat["cells"]["needed_at_most"] == 99  # to the context's end; the last token is never evaluated


def test_plan_of_what_never_fits(client: FlaskClient) -> None:
    """A prompt that is too long is told so, with the numbers; and a completion of it is 400, not 429."""
    plan = client.post("/v1/plan", json={"prompt": "a" * 100}).get_json()

    assert (plan["fits"], plan["admitted"], plan["ttft_s"]) == (False, "never", None)
    assert "100 tokens" in plan["why_never"]


def test_plan_without_rates(engine: FakeEngine) -> None:
    """Before anything is known the times are null, with the reason."""
    client = create_app(ServerConfig(), engine).test_client()
    plan = client.post("/v1/plan", json={"prompt": "a"}).get_json()

    assert (plan["ttft_s"], plan["tokens_per_second"]) == (None, None)
    assert "calibrat" in plan["why_unknown"]


def test_deadlines(client: FlaskClient, engine: FakeEngine) -> None:
    """Headers: in time is admitted and ended then; never in time is 400; not now is 429, and when to come again."""
    body = {"prompt": "a" * 50, "max_tokens": 11}  # 0.5 s and 1 s

    def status(**headers: str) -> tuple[int, str | None]:
        response = client.post(
            "/v1/completions", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        return response.status_code, response.headers.get("Retry-After")

    assert status(X_Deadline_Ms="1400") == (400, None)
    assert status(X_Max_TTFT_Ms="soon") == (400, None)
    engine.events = (Started(), Piece(text="a"))
    busy = client.post("/v1/completions", json=body | {"stream": True})
    assert next(iter(busy.response))
    assert status(X_Max_TTFT_Ms="600") == (429, "1")
    refused = client.post("/v1/completions", json=body, headers={"X-Max-TTFT-Ms": "600"}).get_json()["error"]
    assert refused["code"] == "deadline"
    assert refused["predicted_ms"] > 600
    busy.close()
    engine.events = ANSWER
    assert status(X_Deadline_Ms="2000", X_Max_TTFT_Ms="501")[0] == 200
    asked = engine.requests[-1]
    assert asked.ends_by_s is not None
    assert asked.begins_by_s is not None
    assert asked.ends_by_s - asked.begins_by_s == pytest.approx(1.499)


def test_a_deadline_that_passes_in_the_queue(client: FlaskClient, engine: FakeEngine) -> None:
    """A request that came too late to its turn is 429 with Retry-After, in a stream an error, and counted as such."""
    engine.events = (Failed(message="too late", fault="deadline"),)

    whole = client.post("/v1/completions", json={"prompt": "a"})
    stream = client.post("/v1/completions", json={"prompt": "a", "stream": True})

    assert (whole.status_code, whole.headers["Retry-After"]) == (429, "1")
    assert whole.get_json()["error"]["code"] == "deadline"
    assert sse_data(stream.data)[0]["error"]["code"] == "deadline"
    assert b'ggufphys:requests_rejected_total{reason="deadline"} 2.0' in client.get("/metrics").data


def test_full_queue_says_when(client: FlaskClient, engine: FakeEngine) -> None:
    """Retry-After of a full queue is the predicted end of what is under way."""
    engine.events = (Started(), Piece(text="a"))
    busy = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 41, "stream": True})
    assert next(iter(busy.response))
    engine.refusal = QueueFullError("full", retry_after_s=99)

    assert client.post("/v1/completions", json={"prompt": "a"}).headers["Retry-After"] == "4"
    busy.close()


def test_memory() -> None:
    """The ledger: what was predicted, by terms, what this process holds, and the rest between them."""
    predicted = prediction(MODEL, Params(n_ctx=256))
    app = create_app(ServerConfig(), FakeEngine(), Ledger(predicted=predicted, pids=Pids()))
    memory = app.test_client().get("/v1/memory").get_json()

    assert not isinstance(predicted, str)
    assert memory["predicted"]["total_bytes"] == predicted.total_bytes
    assert (
        sum(t["bytes"] for t in memory["predicted"]["terms"] if t["quantity"] == "context") == predicted.context_bytes
    )
    assert memory["llama_cpp"] is None
    server = memory["measured"]["processes"]["server"]
    assert server["anon_bytes"] > 1 << 20
    rest = memory["unexplained"]["resident_bytes"]
    assert memory["measured"]["resident_bytes"] == predicted.process_bytes + rest


N_VOCAB = 4096  # the embedded model's


def done(n_used: int, n_cells: int = 16384, *, n_batch: int = 128, n_chains: int = 2) -> Counters:
    """What an engine has done, as far as memory goes."""
    return Counters(n_tokens_max=n_used, n_cells=n_cells, n_batch_max=n_batch, n_chains_max=n_chains)


def test_memory_grows_with_the_cache() -> None:
    """A batch that looks at more cells touches more of the compute buffer, by the mask's rows; the ledger knows."""
    params = Params(n_ctx=16384, n_ubatch=128, n_seq_max=2, kv_unified=True, n_threads=1)
    divided = growth_of(MODEL, replace(params, kv_unified=False))
    growth = growth_of(MODEL, params)
    full = growth(done(16384))

    assert growth(done(0)) == growth(done(128)) == 0
    assert 0 < growth(done(8192)) < full
    assert abs(full - growth(done(8192)) - 2 * 128 * 8192) < 1 << 16
    assert divided(done(8192)) < growth(done(8192))
    predicted = prediction(MODEL, params)
    assert not isinstance(predicted, str)
    ledger = Ledger(predicted=predicted, pids=Pids(), growth=growth)
    before, after = (ledger.document((), done(n))["unexplained"] for n in (0, 16384))
    assert after["grown_bytes"] == full
    assert abs(before["resident_bytes"] - after["resident_bytes"] - full) < 1 << 20


def test_memory_of_the_next_worker() -> None:
    """What a worker that died had touched went with it; what it had done stays counted."""
    before = Counters(n_steps=5, n_tokens_max=8192, n_batch_max=128, n_chains_max=2)
    both = before.plus(Counters(n_steps=1, n_tokens_max=7, n_batch_max=3))

    assert (both.n_steps, both.n_tokens_max, both.n_batch_max, both.n_chains_max) == (6, 7, 3, 0)


def test_growth_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that ask for the same at a time get it from one child."""
    children: list[object] = []

    def child(*arguments: object, **options: object) -> SimpleNamespace:
        children.append(arguments)
        time.sleep(0.05)
        return SimpleNamespace(stdout=b"7")

    monkeypatch.setattr(subprocess, "run", child)
    growth = growth_of(MODEL, Params(n_ctx=1024))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(growth, [done(8192)] * 8)) == [7] * 8
    assert len(children) == 1


def test_memory_that_nothing_has_touched() -> None:
    """Small steps touch less of the compute buffer, and the likeliest tokens need no candidates beside a sampler."""
    growth = growth_of(MODEL, Params(n_ctx=1024, n_ubatch=512, n_seq_max=2, n_threads=1))

    assert growth(done(64, 1024, n_batch=512)) == 0
    assert growth(done(64, 1024, n_batch=64)) < growth(done(64, 1024, n_batch=256)) < 0
    assert growth(done(64, 1024, n_batch=512, n_chains=0)) == -2 * 12 * N_VOCAB


def test_memory_of_requests_under_way() -> None:
    """The HTTP side grows with the requests that were under way at a time, beside a worker's process alone."""
    predicted = prediction(MODEL, Params(n_ctx=256, n_threads=1))
    for engine, per_request in ((SimpleNamespace(pid=os.getpid()), REQUEST_BYTES), (SimpleNamespace(), 0)):
        ledger = Ledger(predicted=predicted, pids=Pids(engine))
        few, many = (ledger.document((), Counters(), n_requests=n)["unexplained"] for n in (1, 101))
        assert many["grown_bytes"] - few["grown_bytes"] == 100 * per_request


def test_memory_of_threads() -> None:
    """The HTTP side's threads are counted as they are there, and no more when they have ended."""
    predicted = prediction(MODEL, Params(n_ctx=256, n_threads=1))
    ledger = Ledger(predicted=predicted, pids=Pids(SimpleNamespace(pid=os.getpid())))

    def grown() -> int:
        found: int = ledger.document((), Counters())["unexplained"]["grown_bytes"]
        return found

    before, over = grown(), threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    with_five = grown()
    over.set()
    for thread in threads:
        thread.join()
    assert with_five - before == 5 * THREAD_BYTES
    assert grown() == before


def test_memory_of_a_file_that_has_gone(tmp_path: Path) -> None:
    """A model goes on being served when its file is removed, and its ledger goes on being told."""
    path = tmp_path / "model.gguf"
    path.write_bytes(MODEL.read_bytes())
    growth = growth_of(path, Params(n_ctx=8192, n_ubatch=128, n_seq_max=1, n_threads=1))
    path.unlink()
    assert growth(done(8192, 8192)) == 0


def test_memory_of_devices() -> None:
    """What lies on an RPC worker or a GPU: predicted, by llama.cpp's own account, and what was free there before."""
    gpu, worker = Device(name="CUDA0", memory_bytes=8 << 30), Device(name="RPC0[localhost:50052]", memory_bytes=8 << 30)
    predicted = prediction(MODEL, Params(n_ctx=256, devices=(gpu, worker)))
    assert not isinstance(predicted, str)
    lines = [
        "load_tensors:        CUDA0 model buffer size =     6.50 MiB",
        "load_tensors: RPC0[localhost:50052] model buffer size =     2.00 MiB",
        "x:      CUDA0_Split compute buffer size =     1.50 MiB",
        "x:  CUDA_Host compute buffer size =     3.00 MiB",
    ]
    devices = Ledger(predicted=predicted).document(logged_buffers(lines), Counters())["devices"]

    assert [each["name"] for each in devices] == [gpu.name, worker.name]
    assert [each["llama_cpp_bytes"] for each in devices] == [8 << 20, 2 << 20]
    assert [each["free_bytes_before"] for each in devices] == [8 << 30, 8 << 30]
    assert [each["predicted_bytes"] for each in devices] == [
        sum(t.nbytes for t in predicted.terms if t.device == each and t.quantity in ("model", "context", "compute"))
        for each in (gpu.name, worker.name)
    ]
    assert Ledger(predicted=predicted).document((), Counters())["devices"][0]["llama_cpp_bytes"] is None


def test_a_model_that_sleeps_holds_nothing() -> None:
    """Of one of several models that is not loaded nothing is expected but the server's own."""
    predicted = prediction(MODEL, Params(n_ctx=256))
    asleep = SimpleNamespace(pid=None)
    assert Ledger(predicted=predicted, base_bytes=7, pids=Pids(asleep)).expected_bytes(1) == 7


def test_a_drafts_cells_are_planned_too() -> None:
    """A cell of a request is one of the model's cache, and one of the draft's."""
    params = Params(n_ctx=256)
    with open_gguf(MODEL) as gguf:
        predicted = prediction(MODEL, params, draft=Draft(gguf=gguf, type_k="q8_0", type_v="q8_0"))
    assert not isinstance(predicted, str)
    app = create_app(ServerConfig(), FakeEngine(), Ledger(predicted=predicted))
    plan = app.test_client().post("/v1/plan", json={"prompt": "a", "max_tokens": 9}).get_json()

    drafts = predicted.context_bytes // 2 * 34 // 32  # q8_0 has 34 bytes where f16 has 64
    assert plan["bytes"]["per_cell"] * plan["cells"]["of"] == predicted.context_bytes + drafts


def test_account() -> None:
    """llama.cpp's log in bytes, by quantity, with how far rounding may be off."""
    lines = ["load_tensors:   CPU_Mapped model buffer size =    10.50 MiB", "x:  CPU compute buffer size = 1.25 MiB"]
    found = account(logged_buffers(lines))

    assert found is not None
    assert (found["model_bytes"], found["compute_bytes"]) == (round(10.5 * 2**20), round(1.25 * 2**20))
    assert found["rounding_bytes"] == 2 * round(0.005 * 2**20)
    assert "context_bytes" not in found
