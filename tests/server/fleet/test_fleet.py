"""Several models behind one address: loaded when they are asked for, the longest unused making room."""

import argparse
import json
import random
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ggufphys.cli import main
from ggufphys.params import Params
from server.api.errors import ApiError
from server.engine.errors import EngineError
from server.engine.model_info import Adapter
from server.engine.protocol import EngineStatus
from server.flags.serve import add_arguments
from server.fleet.belongings import by_model
from server.fleet.fleet import LazyEngine
from server.fleet.room import Room
from server.start.member import Run
from server.start.opened import file_stamps
from tests.server.chain_model import write_chain_adapter
from tests.server.start.serving import POSIX, TIMEOUT_S, serving


class Model(LazyEngine):
    """One that only says whether it is loaded."""

    def __init__(self, name: str, nbytes: int, room: Room) -> None:
        super().__init__(name, nbytes, lambda: None, room)  # type: ignore[arg-type, return-value]
        self.awake, self.n_running = False, 0
        self.in_use = lambda: self.n_running
        self.fault: Exception | None = None
        self._count = threading.Lock()

    @property
    def is_loaded(self) -> bool:
        return self.awake

    def load(self) -> None:
        if self.fault:
            raise self.fault
        self.awake = True

    @contextmanager
    def used(self) -> Iterator[None]:
        """In use from a request's arrival to its end, as the application counts."""
        with self._count:
            self.n_running += 1
        try:
            self.wake()
            yield
        finally:
            with self._count:
                self.n_running -= 1
            self._room.look_again()

    def sleep(self) -> None:
        self.awake = False


def test_room() -> None:
    """Footprints stay within the budget: the longest unused goes, one in use never; with nothing to go it is 503."""
    room = Room(10, 4, wait_s=0.01)
    a, b, c = (Model(name, nbytes, room) for name, nbytes in (("a", 4), ("b", 6), ("c", 5)))
    for model in (a, b, a, c):
        model.wake()
    assert [model.awake for model in (a, b, c)] == [True, False, True]
    a.n_running = c.n_running = 1
    with pytest.raises(ApiError) as refused:
        b.wake()
    assert (refused.value.status, refused.value.code) == (503, "no_room")
    assert refused.value.retry_after_s
    a.n_running = 0
    c.n_running = 0
    b.wake()
    assert [model.awake for model in (a, b, c)] == [False, True, False]  # 5 and 6 are too much together


def test_who_has_loaded_goes_on() -> None:
    """A request that is not to wait any longer when its model has just been loaded is served all the same."""
    model = Model("a", 1, Room(10, 1))
    model.wake(lambda: True)
    assert model.awake


def test_a_worker_that_dies_while_it_loads() -> None:
    """It is tried again with the next request, which may come soon."""

    class Dying:
        error = EngineError("the engine's process died while it loaded the model")

        def wait_until_settled(self) -> EngineStatus:
            return EngineStatus.FAILED

        def close(self) -> None:
            pass

    engine = LazyEngine("a", 1, Dying, Room(10, 1))  # type: ignore[arg-type]
    with pytest.raises(ApiError, match="died while it loaded") as refused:
        engine.wake()
    assert (refused.value.status, refused.value.code) == (503, "worker_died")
    assert refused.value.retry_after_s
    assert not engine.is_loaded


def test_a_load_that_fails_is_told_to_all_who_wait() -> None:
    """Requests that wait for a model that cannot be loaded get its error, and others their turn."""
    room = Room(10, 1)
    broken, other = Model("broken", 1, room), Model("other", 1, room)
    broken.fault = ApiError(503, "broken could not be loaded")
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(broken.wake) for _ in range(3)]
        served = pool.submit(other.wake)
    assert [each.exception() for each in asked] == [broken.fault] * 3
    assert served.exception() is None


def test_who_waits_longest_comes_next() -> None:
    """A model in use without a pause goes all the same when another has waited for long enough: none starves."""
    room = Room(10, 1, hold_s=0.1)
    busy, other = Model("busy", 1, room), Model("other", 1, room)
    done = threading.Event()

    def use() -> None:
        while not done.is_set():
            with busy.used():
                pass

    with ThreadPoolExecutor(4) as pool:
        users = [pool.submit(use) for _ in range(3)]
        with other.used():
            done.set()
    assert [each.result() for each in users] == [None] * 3


@pytest.mark.parametrize("n_max", [1, 2, 3])
def test_none_is_lost(n_max: int) -> None:
    """Parallel requests to models in turn are all served, by a model that stays there, within the budget."""
    room = Room(10, n_max, hold_s=0.01)
    models = [Model(name, nbytes, room) for name, nbytes in (("a", 4), ("b", 6), ("c", 5), ("d", 1))]

    def use(seed: int) -> int:
        draw = random.Random(seed)
        for _ in range(25):
            model = draw.choice(models)
            with model.used():
                assert model.awake
                awake = [each for each in models if each.awake]
                assert len(awake) <= n_max
                assert sum(each.process_bytes for each in awake) <= 10
                time.sleep(draw.choice((0, 0, 0.001)))
                assert model.awake
        return 25

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 200


def test_number_of_models() -> None:
    """No more are loaded than may be, whatever their size."""
    room = Room(1 << 40, 1)
    a, b = Model("a", 1, room), Model("b", 1, room)
    a.wake()
    b.wake()

    assert [a.awake, b.awake] == [False, True]


@POSIX
def test_two_models(chain_path: Path, tmp_path: Path) -> None:
    """Each name answers; one is in memory where only one may be; an unknown name is 404; keys come first.

    At SIGHUP the file of keys is read again; an empty one changes nothing, and ends nothing.
    """
    keys = tmp_path / "keys"
    keys.write_text("k")
    with serving(
        "-m", f"one={chain_path}", "-m", f"two={chain_path}", "-c", "256", "--models-max", "1",
        "--api-key-file", str(keys),
    ) as server:  # fmt: skip

        def call(path: str, key: str = "k", **body: object) -> tuple[int, Any]:
            data = json.dumps(body).encode() if body else None
            headers = {"Content-Type": "application/json", "X-Api-Key": key}
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(server.url + path, data, headers), timeout=TIMEOUT_S
                ) as response:
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error)

        def loaded() -> dict[str, str]:
            return {m["id"]: m["status"]["value"] for m in call("/v1/models")[1]["data"]}

        assert call("/health")[0] == 200
        assert call("/v1/completions", key="wrong", model="one", prompt="!")[0] == 401
        assert call("/v1/memory")[1]["cells"] == {"total": 0, "used": 0, "busy": 0}
        assert call("/v1/models/two")[0] == 200
        assert loaded() == {"one": "unloaded", "two": "unloaded"}
        for name in ("one", "two", "one"):
            status, answer = call("/v1/completions", model=name, prompt="!", max_tokens=3, temperature=0)
            assert (status, answer["model"]) == (200, name)
            assert answer["choices"][0]["text"].startswith("H")
            assert loaded()[name] == "loaded"
            assert list(loaded().values()).count("loaded") == 1
        assert call("/v1/completions", model="three", prompt="!")[0] == 404
        assert call("/v1/completions", key="wrong", model="three", prompt="!")[0] == 401
        keys.write_text("")
        server.process.send_signal(signal.SIGHUP)
        assert server.process.stderr is not None
        while "stay as they are" not in server.process.stderr.readline():
            assert server.process.poll() is None
        assert call("/v1/models")[0] == 200
        keys.write_text("new")
        server.process.send_signal(signal.SIGHUP)
        while "read again" not in server.process.stderr.readline():
            assert server.process.poll() is None
        assert [call("/v1/models", key=key)[0] for key in ("k", "new")] == [401, 200]


def test_footprints_have_what_stands_beside(chain_path: Path, tmp_path: Path) -> None:
    """A model's draft and adapters are part of what it is predicted to hold."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    adapter = write_chain_adapter(tmp_path / "a.gguf", {"0": "A"})
    args = parser.parse_args(["-md", f"draft={chain_path}", "--lora", f"lora={adapter}"])
    own = by_model(args, ("plain", "draft", "lora"))
    plain, draft, lora = (Run.of(name, chain_path, own[name], Params(n_ctx=256)) for name in own)
    assert plain.nbytes < lora.nbytes < draft.nbytes
    assert [len(file_stamps(run.asked, run.planned)) for run in (plain, draft, lora)] == [1, 2, 1]


@POSIX
def test_drafts_and_adapters_of_several(chain_path: Path, tmp_path: Path) -> None:
    """Each model has its own draft and adapters; one with a name is a model of its own, in the list too."""
    named = write_chain_adapter(tmp_path / "named.gguf", {"0": "A", "A": "B"})
    applied = write_chain_adapter(tmp_path / "applied.gguf", {"0": "X"})
    with serving(
        "-m", f"one={chain_path}", "-m", f"two={chain_path}", "-c", "256", "-np", "2", "--spec-always",
        "-md", f"one={chain_path}", "--lora", f"two:x={named},one={applied}",
    ) as server:  # fmt: skip

        def answer(model: str) -> tuple[str, str, bool]:
            asked = server.post(model=model, prompt="90", max_tokens=6, temperature=0)
            with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as response:
                found = json.load(response)
            return found["model"], found["choices"][0]["text"][:1], bool(found["timings"].get("draft_n"))

        assert answer("two:x") == ("two:x", "A", False)
        assert answer("two") == ("two", "1", False)
        assert answer("one") == ("one", "X", True)
        with urllib.request.urlopen(f"{server.url}/v1/models", timeout=TIMEOUT_S) as response:
            listed = {model["id"]: model["status"]["value"] for model in json.load(response)["data"]}
        assert listed == {"one": "loaded", "two": "loaded", "two:x": "loaded"}


def test_whose_a_draft_or_an_adapter_is() -> None:
    """It is the model's whose name stands before it, the longest if several fit, and nobody else's flags change."""
    adapters = [Adapter(path="1", name="a:b:c", scale=0.0, named_scale=2.0), Adapter(path="2", name="a", scale=0.0)]
    args = argparse.Namespace(adapters=adapters, draft_model="a:b=d", mmproj="b=m", spec_type=("draft-simple",), port=1)
    own = by_model(args, ("a", "a:b", "b"))
    assert own["a:b"].adapters == [Adapter(path="1", name="c", scale=0.0, named_scale=2.0)]
    assert own["a"].adapters == [Adapter(path="2")]
    assert own["b"].adapters == []
    assert [own[name].draft_model for name in own] == [None, "d", None]
    assert [own[name].mmproj for name in own] == [None, None, "m"]
    assert [own[name].spec_type for name in own] == [(), ("draft-simple",), ()]
    assert all(each.port == 1 for each in own.values())


@POSIX
def test_end_of_several(chain_path: Path, tmp_path: Path) -> None:
    """Contexts beyond what models were trained for are told, and a loaded model's file that is overwritten in place; at
    SIGTERM what is under way ends, and is told.
    """
    model = tmp_path / "model.gguf"
    model.write_bytes(chain_path.read_bytes())
    with serving("-m", f"one={model}", "-m", f"two={chain_path}", "-c", "4000", "--no-mmap") as server:
        assert server.process.stderr is not None
        for name in ("one", "two"):
            assert f"{name}: a sequence may have 4,096 tokens, the model was trained on 512" in (
                server.process.stderr.readline()
            )
        with urllib.request.urlopen(server.post(model="one", prompt="0", max_tokens=1), timeout=TIMEOUT_S):
            pass  # loaded now
        with model.open("ab") as file:
            file.write(b"x")
        assert "overwritten in place" in server.process.stderr.readline()
        asked = server.post(model="one", prompt="0", stream=True, max_tokens=1500)
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:
            assert answer.readline().startswith(b"data:")
            server.process.send_signal(signal.SIGTERM)
            assert "finishing 1 request(s)" in server.process.stderr.readline()
            assert answer.read().endswith(b"data: [DONE]\n\n")
        assert server.process.wait(TIMEOUT_S) == 0


def test_names_are_needed(chain_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several models without names, or one larger than the budget alone, are refused before anything is loaded."""
    assert main(["serve", "-m", str(chain_path), "-m", str(chain_path), "--port", "0"]) == 2
    assert "NAME=FILE" in capsys.readouterr().err
    assert main(["serve", "-m", f"a={chain_path}", "--models-memory", "1MiB", "-c", "256", "--port", "0"]) == 1
    assert "a alone needs" in capsys.readouterr().err
