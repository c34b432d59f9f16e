"""The report of recorded results: their numbers, no others; what is missing is said with the command that makes it."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest

from bench.report.command import SECTIONS
from bench.report.machine import calibration
from bench.report.pages import as_html
from bench.report.section import Section, Table
from bench.results.records import Record
from ggufphys.cli import main
from tests.bench.report.samples import all_kinds, level, measured, record, timed

BROWSER: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
VOID: Final = frozenset({"meta", "br"})


def kept(folder: Path, records: Sequence[Record]) -> Path:
    """The records in a file."""
    path = folder / "results.jsonl"
    path.write_text("".join(record.to_json() + "\n" for record in records))
    return path


class Page(HTMLParser):
    """What is open at the end, ids, addresses, texts of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open it."""
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.addresses += [found[name] or "" for name in ("src", "href", "xlink:href") if name in found]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Without content."""
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        """It must be the last that was opened."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Of a cell, and of what stands in it."""
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All kinds have their section, table, picture and command; the page stands alone and escapes what it shows."""
    page, markdown = tmp_path / "page.html", tmp_path / "page.md"
    assert (
        main(["bench", "report", str(kept(tmp_path, all_kinds())), "-o", str(page), "--markdown", str(markdown)]) == 0
    )
    assert not capsys.readouterr().err
    text = page.read_text()
    found = Page(text)

    assert not found.open
    assert len(found.ids) == len(set(found.ids))
    assert all(address.startswith("#") for address in found.addresses)
    assert not re.search(r"@import|url\((?!#)", text)
    assert text.count("<figure>") == 6
    assert "A <fast> CPU" not in text
    assert {"100.00", "99.00", "+1.01 %", "−2.91 %", "55.0", "+10.0 %", "320.0", "4.80", "0.02000", "fails"} <= set(
        found.cells
    )
    for kind in all_kinds():
        assert unescape(text).count(kind.command)
        assert kind.command in markdown.read_text()
    assert "a \\| b &lt; c" in markdown.read_text()


def test_what_rows_begin_with_stands_once() -> None:
    """A cell that stands beside several rows is as high as they are: every row has all its columns."""
    rows = [("a-b", "x", "1"), ("a-b", "x", "1"), ("a-b", "y", "1"), ("c", "y", "2"), ("a-b", "y", "2")]
    table = Table(header=("m", "p", "n"), rows=rows, right=(2,))
    text = as_html("t", [Section(key="k", title="s", missing="", tables=[table])])
    grid: list[list[str]] = [["", "", ""] for _ in rows]
    for i, row in enumerate(re.findall("<tr>(.*?)</tr>", text)[1:]):
        for n_rows, cell in re.findall(r'<td[^>]*?(?: rowspan="(\d+)")?>(.*?)</td>', row):
            column = grid[i].index("")
            for below in grid[i : i + int(n_rows or 1)]:
                below[column] = re.sub("<.*?>", "", cell)
    assert [tuple(row) for row in grid] == rows
    assert text.count("<td") == 3 + 4 + len(rows)
    assert '<span class="whole">a-b</span>' in text


def test_earlier_calibrations_are_told_without_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rates that were kept in another schema have their row; what cannot be read of them is not drawn."""
    old = next(record for record in all_kinds() if record.kind == "calibrate")
    old.result["schema_version"] = 1
    old.result["processors"][0]["products"]["Q4_K"][0].pop("fetched")

    assert main(["bench", "report", str(kept(tmp_path, [old])), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "a core's cache, GB/s" in unescape(page)
    assert "<figure>" not in page


def test_calibrations_of_the_schema_before_are_drawn() -> None:
    """The report of the results that are kept here has all that it was published with."""
    old = next(record for record in all_kinds() if record.kind == "calibrate")
    old.result["schema_version"] = 2
    for rates in old.result["processors"][0]["products"].values():
        for rate in rates:
            rate.pop("converted_s", None)

    assert calibration([old]).pictures


def test_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A section without results has no figure and names the command that makes them."""
    assert main(["bench", "report", str(kept(tmp_path, [measured()])), "--json"]) == 0
    out = capsys.readouterr()
    sections = {s["key"]: s for s in json.loads(out.out)["sections"]}

    assert len(sections) == len(SECTIONS)
    assert [key for key, s in sections.items() if s["has_results"]] == ["machine", "memory", "speed"]
    assert "bench calibrate" in sections["calibration"]["missing"]
    assert "bench hypotheses" in out.err


def test_the_last_run_of_a_command_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two runs of one command the later is shown."""
    first, last = measured(process=90 << 20), measured(process=80 << 20)
    assert main(["bench", "report", str(kept(tmp_path, [first, last]))]) == 0
    text = capsys.readouterr().out

    assert "80.00" in text
    assert "90.00" not in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{}", "line 1: no record"),
        ("nothing", "line 1: no record"),
        ('{"schema_version": 99}', "schema 99, expected 1"),
        ("", "no results"),
    ],
)
def test_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    """A file of something else, and an empty one, are told in a line with exit code 2."""
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    assert main(["bench", "report", str(path)]) == 2
    assert words in capsys.readouterr().err


def test_strange_results_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records of something else than their commands print are named once, and the report is that of the others."""
    results: list[tuple[str, object]] = [
        ("measure", None), ("measure", {}), ("measure", {"rows": [{"quantity": "process_bytes"}]}), ("load", {}),
        ("load", {"levels": []}), ("quality", {"results": [{}]}), ("hypotheses", "x"), ("hypotheses", [{}]),
        ("calibrate", {"processors": [{}]}), ("speed", None), ("speed", {"rows": [{}]}), ("inspect", None),
    ]  # fmt: skip
    good = measured()
    odd = [record(kind, f"ggufphys odd{i}", result) for i, (kind, result) in enumerate(results)]
    assert main(["bench", "report", str(kept(tmp_path, [good]))]) == 0
    alone = capsys.readouterr().out
    assert main(["bench", "report", str(kept(tmp_path, [good, *odd]))]) == 0
    out, err = capsys.readouterr()

    assert out == alone
    for i, (kind, _) in enumerate(results):
        assert err.count(f"the {kind} result of 'ggufphys odd{i}'") == 1


def test_results_of_several_machines_say_whose_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A letter a machine stands in the first table, behind each name of a row and a curve, and above its commands."""
    here = [*all_kinds(), timed()]
    rules = {"id": "H3", "claim": "c", "source": "s", "predicted": 1.0, "measured": 1.0, "basis": "rules"}
    here[-2].result.append({**rules, "verdict": "holds", "explanation": "by rules"})
    there = [replace(one, machine={**one.machine, "cpu": "Another", "n_cpus": 1}) for one in deepcopy(here)]
    there[-2].result[0] |= {"verdict": "holds"}
    page = tmp_path / "page.html"
    assert main(["bench", "report", str(kept(tmp_path, here + there)), "-o", str(page)]) == 0
    text = page.read_text()
    found = Page(text)

    assert "What local inference costs on A &lt;fast&gt; CPU, 2 CPUs and on Another, 1 CPU" in text
    for name in ("tiny -c 4096", "timed, 2 threads", "timed", "ours", "F16"):
        assert {f"{name} (A)", f"{name} (B)"} <= set(found.cells)
        assert name not in found.cells
    assert "rules (A, B)" in found.cells  # what is the same on both is one row
    assert found.cells.count("a | b < c") == 2
    assert "3 claims, some tried on several models and machines, 4 outcomes: 2 hold" in text
    assert text.count("<figure>") == 8  # a roof and rates a machine, the others together
    drawn = {unescape(name).strip() for name in re.findall(r"<text[^>]*>([^<]*)</text>", text)}
    assert {"ours (A)", "ours (B)", "tiny -c 4096 (A)", "tiny -c 4096 (B)", "beside F16 (B)"} <= drawn
    assert "# on machine B\nggufphys measure tiny.gguf" in unescape(text)


def test_the_roofline_is_of_what_was_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Points come from `bench speed` with the roof's threads on the roof's machine, without any other record."""
    calibration = next(one for one in all_kinds() if one.kind == "calibrate")
    elsewhere = replace(timed(), machine={**timed().machine, "cpu": "another"}, command="ggufphys elsewhere")
    records = [calibration, timed(), replace(timed(n_threads=1), command="ggufphys one"), elsewhere]
    assert main(["bench", "report", str(kept(tmp_path, records))]) == 0
    text = capsys.readouterr().out.split("## Roofline")[1].split("##")[0]

    assert "| timed (A) | decode 1,024 | 2.00 | 20.0 | 40.0 | 50% |" in text
    assert "| timed (A) | batch 4 | 2.00 | 20.0 | 40.0 | 50% |" in text
    assert text.count("| timed (A) |") == 3
    assert "ggufphys bench speed timed.gguf" in text
    assert "elsewhere" not in text


def test_disturbed_speeds_judge_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A figure that met other work on the machine is in the table and marked; errors are told of the others."""
    run = timed()
    run.result["rows"][1] |= {"measured": 10.0, "busy": 0.5}
    assert main(["bench", "report", str(kept(tmp_path, [run]))]) == 0
    text = capsys.readouterr().out

    assert "| decode 1,024 (busy) | 120.0 | 10.0 | +1100.0 % |" in text
    assert "Predictions were off: prefill by 20.0 % in the median, 20.0 % at most; batch by 20.0 %" in text
    assert "1 of 3 figures met other work" in text


def test_odd_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names are shown as they are: markup, formulas, underscores in front, other line ends; long ones shortened."""
    odd = ["'<b>a$x^2$ $\\frac$.gguf'", "_hidden.gguf", "a\u2028b.gguf", "x" * 300 + ".gguf", "ollama:gemma3"]
    levels = {"url": "u", "model": "m", "prompt": "1", "answer": "2", "levels": [level(1)]}
    loads = [record("load", name, {"label": name, **levels}) for name in ("_first", "$a$ & <i>")]
    page = tmp_path / "page.html"
    assert main(["bench", "report", str(kept(tmp_path, [*map(measured, odd), *loads])), "-o", str(page)]) == 0
    text = page.read_text()
    found = Page(text)

    assert {"_hidden -c 4096", "<b>a$x^2$ $\\frac$ -c 4096", "ollama:gemma3 -c 4096"} <= set(found.cells)
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert {"_first", "$a$ & <i>", "_hidden -c 4096", "<b>a$x^2$ $\\frac$ -c 4096"} <= {
        unescape(name).strip() for name in drawn
    }
    assert max(map(len, drawn)) < 100
    assert not found.open


LOOK: Final = """<script>
const texts = [...document.querySelectorAll("svg")].map((svg) => [...svg.querySelectorAll("text")]
  .filter((e) => e.textContent.trim()).map((e) => [e.textContent.trim(), e.getBoundingClientRect()]));
const over = [], outside = [];
texts.forEach((found, i) => {
  const box = document.querySelectorAll("svg")[i].getBoundingClientRect();
  found.forEach(([a, p], j) => {
    const wide = p.left < box.left - 2 || p.right > box.right + 2;
    if (wide || p.top < box.top - 2 || p.bottom > box.bottom + 2) outside.push(a);
    found.slice(j + 1).forEach(([b, q]) => {
      const w = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (w > 2 && h > 4) over.push([a, b]);
    });
  });
});
const out = document.createElement("pre"); out.id = "seen";
out.textContent = JSON.stringify({over, outside, wide: document.documentElement.scrollWidth, window: window.innerWidth,
  scrolled: [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth).length,
  pictures: texts.length, least: Math.min(...texts.flat().map(([, p]) => p.height))});
document.body.append(out);
</script></body>"""


def seen_of(results: Path, folder: Path) -> dict[str, Any]:
    """What a browser with a window of 1,100 pixels makes of the page of these results."""
    page = folder / "page.html"
    assert main(["bench", "report", str(results), "-o", str(page)]) == 0
    page.write_text(page.read_text().replace("</body>", LOOK))
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
         "--window-size=1100,900", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    match = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(unescape(match[1]))
    return found


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_tables_are_seen_whole(tmp_path: Path) -> None:
    """No table of this repository's own results has to be scrolled: why a claim fails stands in its last column."""
    assert seen_of(Path(__file__).parents[3] / "bench" / "results", tmp_path)["scrolled"] == 0


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_in_a_browser(tmp_path: Path) -> None:
    """No text of a picture lies over another or outside, none is tiny, and the page is not wider than its window."""
    seen = seen_of(kept(tmp_path, all_kinds()), tmp_path)

    assert seen["pictures"] == 6
    assert not seen["over"]
    assert not seen["outside"]
    assert seen["wide"] <= seen["window"]
    assert seen["least"] >= 8  # pixels
