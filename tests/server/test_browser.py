"""The page in a real browser (headless Chromium, where there is one): it shows what there is, and chats."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ggufphys.embedded import MODEL
from ggufphys.params import Params
from server.accounts.ledger import Ledger, Pids
from server.app import create_app
from server.config import ServerConfig
from server.engine.protocol import EngineStatus
from server.engine.worker.supervised import SupervisedEngine
from server.net.http import HttpServer
from server.start.beforehand import prediction, resident_bytes
from tests.server.fake_engine import FakeEngine
from tests.server.start.serving import serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT_S = 60.0
ASK = """(async () => {
  while (document.readyState !== "complete") await new Promise(done => setTimeout(done, 50));
  await look();
  document.getElementById("text").value = "def main(";
  await send();
  await look();
  window.found = JSON.stringify({state: document.getElementById("state").textContent,
          slots: document.querySelectorAll(".slot").length,
          memory: document.getElementById("buffers").innerText, resident: document.getElementById("resident").innerText,
          talk: document.getElementById("talk").innerText, bad: document.querySelectorAll(".bad").length});
})()"""

# Of two models the second is asked: for too much, which is taken back, and for something else.
ASK_THE_SECOND = """(async () => {
  while (document.readyState !== "complete") await new Promise(done => setTimeout(done, 50));
  const loaded = async () => (await (await fetch("v1/models")).json()).data.map(model => model.status.value);
  await look(); await look();
  const first = {state: document.getElementById("state").textContent, loaded: await loaded()};
  document.getElementById("which").value = "b";
  const long = "word ".repeat(2000).trim();
  document.getElementById("text").value = long;
  await send();
  const second = {bad: [...document.querySelectorAll("#talk .bad")].map(e => e.textContent).join(""),
                  given_back: document.getElementById("text").value === long, messages: messages.length};
  document.getElementById("text").value = "def main(";
  await send(); await look();
  window.found = JSON.stringify({first, second, loaded: await loaded(), roles: messages.map(m => m.role),
          state: document.getElementById("state").textContent});
})()"""
LOOK = """(async () => {
  while (document.readyState !== "complete") await new Promise(done => setTimeout(done, 50));
  await look();
  window.found = JSON.stringify({state: document.getElementById("state").textContent,
          slots: document.querySelectorAll(".slot").length, wide: document.documentElement.scrollWidth,
          lines: [...document.querySelectorAll("td.n")].filter(e => e.offsetHeight > 40).length,
          memory: document.querySelectorAll("#buffers tr").length, window: window.innerWidth});
})()"""


async def evaluate(url: str, profile: Path, script: str, width: int = 1280) -> Any:
    """The value of a script in a page, by the DevTools protocol."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command.append(f"--user-data-dir={profile}")
    with subprocess.Popen(
        [*command, "--remote-debugging-port=0", url], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as browser:
        try:
            port_file = profile / "DevToolsActivePort"
            for _ in range(int(TIMEOUT_S * 10)):
                if port_file.exists() and port_file.read_text().strip():
                    break
                await asyncio.sleep(0.1)
            port = port_file.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                pages: list[dict[str, str]] = []
                while not pages:
                    async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                        pages = [page for page in await answer.json() if page["url"].startswith(url)]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"]) as socket:
                    for number in range(int(TIMEOUT_S * 5)):  # it may still be loading the page, and forget the first
                        expression = f"window.found || (window.asked = window.asked || {script}, '')"
                        await socket.send_json(
                            {"id": number, "method": "Runtime.evaluate", "params": {"expression": expression}}
                        )
                        value = (await socket.receive_json())["result"].get("result", {}).get("value")
                        if value:
                            return json.loads(value)
                        await asyncio.sleep(0.2)
        finally:
            browser.terminate()
    raise AssertionError("the browser gave no answer")


pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")]


def test_page_in_a_browser(tmp_path: Path) -> None:
    """Slots, predicted beside llama.cpp's own sizes and what is resident are shown, and a message is answered."""
    params = Params(n_ctx=512, n_seq_max=2, n_outputs_max=2, kv_unified=True)
    predicted = prediction(MODEL, params)
    engine = SupervisedEngine(MODEL, params)
    try:
        assert engine.wait_until_settled(60) is EngineStatus.READY
        ledger = Ledger(predicted=predicted, base_bytes=resident_bytes(), pids=Pids(engine))
        config = ServerConfig(field_defaults={"temperature": 0.0, "n_predict": 12})
        app = create_app(config, engine, ledger)
        with HttpServer(app, host="127.0.0.1", port=0, max_streams=8, max_body_bytes=1 << 20) as server:
            found = asyncio.run(asyncio.wait_for(evaluate(f"{server.url}/", tmp_path, ASK), TIMEOUT_S))
    finally:
        engine.close()

    assert found.get("state") == "ready", found
    assert (found["slots"], found["bad"]) == (2, 0)
    sizes = [line.split("\t") for line in found["memory"].splitlines()]
    assert [row[0] for row in sizes] == ["model", "context", "compute", "output"]
    assert all(row[1] == row[2] for row in sizes), sizes
    assert "worker" in found["resident"]
    assert "unexplained" in found["resident"]
    said = found["talk"].split("model", 1)
    assert "def main(" in said[0]
    assert len(said[1].strip()) > 3


def test_page_of_several_models(tmp_path: Path) -> None:
    """Looking loads no model; the one that is chosen answers, and what it refuses is no part of the conversation."""
    with serving("-m", f"a={MODEL}", "-m", f"b={MODEL}", "-c", "512", "-n", "12", "--temp", "0") as server:
        script = evaluate(f"{server.url}/", tmp_path, ASK_THE_SECOND)
        found = asyncio.run(asyncio.wait_for(script, TIMEOUT_S))

    assert found["first"] == {"state": "not loaded: a message loads it", "loaded": ["unloaded", "unloaded"]}
    assert "exceeds" in found["second"].pop("bad")
    assert found["second"] == {"given_back": True, "messages": 0}
    assert (found["loaded"], found["roles"]) == (["unloaded", "loaded"], ["user", "assistant"])
    assert found["state"] == "ready"


def test_page_without_slots(tmp_path: Path) -> None:
    """A server that keeps its slots to itself shows the rest; in a narrow window no size is broken, nothing is wide."""
    app = create_app(ServerConfig(shows_slots=False), FakeEngine())
    with HttpServer(app, host="127.0.0.1", port=0, max_streams=8, max_body_bytes=1 << 20) as server:
        script = evaluate(f"{server.url}/", tmp_path, LOOK, width=500)
        found = asyncio.run(asyncio.wait_for(script, TIMEOUT_S))

    assert (found["state"], found["slots"], found["memory"], found["lines"]) == ("ready", 0, 4, 0)
    assert found["wide"] <= found["window"]
