"""The page in a browser: its slider shows what it holds, nothing is wider than the window, no key lies over another."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any, Final

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.units import format_mib
from tests.ggufphys.models import shape_header

BROWSER: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)

# Moves the slider to both ends and back, and leaves what is shown then in an element of its own.
LOOK: Final = """<script>
const seen = {errors: [], states: []};
window.addEventListener("error", (event) => seen.errors.push(event.message));
for (const i of [0, slider.max, 0]) {
  slider.value = i; slider.dispatchEvent(new Event("input"));
  const texts = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);
  const keys = [...document.querySelectorAll("svg .key")].filter((e) => e.style.display !== "none");
  const boxes = keys.filter((e) => e.id.startsWith("k")).map((e) => [e.id.split("-")[1], e.getBoundingClientRect()]);
  boxes.sort((a, b) => a[0] - b[0] || a[1].left - b[1].left);
  const over = boxes.slice(1).filter((b, j) => b[0] === boxes[j][0] && b[1].left < boxes[j][1].right).length;
  const segments = [...document.querySelectorAll("rect[id^=s]")];
  seen.states.push({
    n_ctx: data.points[i].n_ctx, total: texts("figure [data-total]"), over, process: texts("[data-process]"),
    cells: texts("td[id^=c]"), run: texts("[data-run]"), widths: segments.map((e) => e.getBoundingClientRect().width),
  });
}
seen.wide = document.documentElement.scrollWidth; seen.window = window.innerWidth;
seen.points = data.points; seen.scale = data.scale_bytes;
seen.bar = document.querySelector(".bar svg").getBoundingClientRect().width;
const out = document.createElement("pre");
out.id = "seen";
out.textContent = JSON.stringify(seen);
document.body.append(out);
</script></body>"""


def looked_at(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What the browser shows of it in a window so wide."""
    assert BROWSER is not None
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", LOOK), encoding="utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
        f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    match = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match is not None, done.stderr
    found: dict[str, Any] = json.loads(unescape(match[1]))
    return found


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [480, 1100])
@pytest.mark.parametrize(
    "flags", [(), ("--device", "CUDA0=8GiB,CUDA1=6GiB,CUDA2=6GiB,Vulkan0=4GiB")], ids=["host", "five"]
)
def test_slider(tmp_path: Path, width: int, flags: tuple[str, ...]) -> None:
    """At each place of the slider figures and bars are those of that point; the page is not wider than its window."""
    model = MODEL if not flags else shape_header(tmp_path / ("long-name-" * 12 + ".gguf"), "qwen3-30b-a3b")
    page = tmp_path / "page.html"
    assert main(["inspect", str(model), "-c", "1k", *flags, "--html", str(page)]) == 0
    seen = looked_at(page, width, tmp_path / "profile")

    assert not seen["errors"]
    assert seen["wide"] <= seen["window"]
    assert [state["n_ctx"] for state in seen["states"]] == [seen["points"][i]["n_ctx"] for i in (0, -1, 0)]
    for state in seen["states"]:
        point = next(point for point in seen["points"] if point["n_ctx"] == state["n_ctx"])
        flat = [nbytes for row in point["nbytes"] for nbytes in row]
        by_device = [nbytes for column in zip(*point["nbytes"], strict=True) for nbytes in column]
        assert state["cells"] == [format_mib(nbytes) if nbytes else "–" for nbytes in flat]
        assert state["total"] == [format_mib(nbytes) for nbytes in point["total_bytes"]]
        assert state["run"] == point["run"]
        assert state["process"][0] == format_mib(point["process_bytes"])
        expected = [seen["bar"] * nbytes / seen["scale"] for nbytes in by_device]
        assert state["widths"] == pytest.approx(expected, abs=1.5)  # a bar's border is a pixel
        assert not state["over"]
