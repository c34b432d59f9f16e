"""`inspect --html`: a page with the numbers of --json, that names nothing outside itself and escapes what it shows."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ggufphys.cli import main
from ggufphys.embedded import MODEL
from ggufphys.report.page.pictures import columns
from ggufphys.units import format_mib
from tests.ggufphys.models import llama_metadata, llama_tensors, shape_header, write_model

VOID = frozenset({"meta", "br", "input", "rect", "path", "circle", "line"})
DEVICES = ("--device", "CUDA0=8GiB,CUDA1=6GiB")


class Page(HTMLParser):
    """Elements that are open at the end, ids, texts by id, addresses named, the embedded document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.texts: dict[str, str] = {}
        self.totals: dict[str, str] = {}
        self.process: dict[str, str] = {}
        self.addresses: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open it."""
        found = {name: value or "" for name, value in attrs}
        self.addresses += [found[name] for name in ("src", "href", "xlink:href", "action") if name in found]
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in VOID:
            self.open.append((tag, found.get("id", "")))
            self.wanted = found

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        """Close it: it must be the last that was opened."""
        assert self.open, tag
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        """Text of the innermost element."""
        if self.open and self.open[-1][1]:
            self.texts[self.open[-1][1]] = self.texts.get(self.open[-1][1], "") + data
        if self.open and "data-total" in self.wanted and data.strip():
            self.totals.setdefault(self.wanted["data-total"], data)
        if self.open and "data-process" in self.wanted and data.strip():
            self.process.setdefault(self.wanted["data-process"], data)


def written(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str, code: int = 0) -> str:
    """The page, written into a file."""
    assert main(["inspect", *arguments, "--html", str(path)]) == code
    assert str(path) in capsys.readouterr().out
    return path.read_text(encoding="utf-8")


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The same as JSON."""
    assert main(["inspect", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("flags", [(), DEVICES], ids=["host", "devices"])
def test_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    """Every figure of bars, table and slider is the one of --json, at the length asked for and at another."""
    model = str(shape_header(tmp_path / "m.gguf", "llama-110m"))
    page = Page(written(capsys, tmp_path / "page.html", model, "-c", "8k", *flags))
    data = json.loads(page.texts["contexts"])

    for n_ctx in (8192, 1536):
        memory = asked(capsys, model, "-c", str(n_ctx), *flags)["memory"]
        point = next(point for point in data["points"] if point["n_ctx"] == n_ctx)
        assert point["total_bytes"] == [
            sum(d[f"{q}_bytes"] for q in ("model", "context", "compute", "output")) for d in memory["devices"]
        ]
        assert data["devices"] == [device["name"] for device in memory["devices"]]
        for row, nbytes in zip(data["rows"], point["nbytes"], strict=True):
            assert nbytes == [
                sum(
                    term["nbytes"] for term in memory["terms"]
                    if (term["quantity"], term["name"], term["device"]) == (row["quantity"], row["name"], device)
                )
                for device in data["devices"]
            ]  # fmt: skip
        assert f"n_ctx {n_ctx:,}, " in point["run"][0]
        assert point["run"][1].startswith(f"n_batch {min(n_ctx, 2048):,}, ")
        for name in ("process_bytes", "file_bytes", "anon_bytes"):
            assert point[name] == (memory["process"] | memory)[name]
        if n_ctx == 8192:
            assert [page.totals[str(d)] for d in range(len(data["devices"]))] == [
                format_mib(nbytes) for nbytes in point["total_bytes"]
            ]
            assert page.process["process_bytes"] == format_mib(memory["process_bytes"])
            cells = {
                page.texts[f"c{r}-{d}"]: nbytes for r, row in enumerate(point["nbytes"]) for d, nbytes in enumerate(row)
            }
            assert all(text == (format_mib(nbytes) if nbytes else "–") for text, nbytes in cells.items())


def test_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Elements are closed in their order, ids are unique, and nothing outside the page is named."""
    text = written(capsys, tmp_path / "page.html", str(MODEL), "--explain", "--costs", "--assert-fits", "8GiB")
    page = Page(text)

    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert {"where", "lengths", "by-layer", "types", "tensors", "terms", "costs"} <= set(page.ids)
    assert page.addresses == []
    assert not re.search(r"@import|url\((?!#)|https?://", text)
    assert "fits: the process needs" in text


def test_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file says of itself is text on the page, never markup, wherever it stands."""
    name = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;"
    metadata = {**llama_metadata(), "general.name": name}
    write_model(tmp_path / "a<b>&.gguf", metadata, llama_tensors())
    page = written(capsys, tmp_path / "page.html", str(tmp_path / "a<b>&.gguf"), "-c", "512")

    assert "<img" not in page
    assert page.count("<script") == 2  # the sweep, and what the slider does
    assert "<b>&." not in page
    assert not Page(page).open


def test_refused_and_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that llama.cpp would not load has a page with the reasons; one without a rule has its weights."""
    write_model(tmp_path / "short.gguf", llama_metadata(), llama_tensors()[:-1])
    page = written(capsys, tmp_path / "a.html", str(tmp_path / "short.gguf"), code=3)
    assert "llama.cpp would not load this file" in page
    assert "<li>" in page
    assert not Page(page).open

    write_model(tmp_path / "new.gguf", llama_metadata("llama9"), llama_tensors())
    page = written(capsys, tmp_path / "b.html", str(tmp_path / "new.gguf"), code=4)
    assert "weights" in page
    assert not Page(page).open


@pytest.mark.parametrize(
    "arguments",
    [
        ("--html", "x.gguf"), ("--html", "--json"), ("--html", "--sweep", "ctx=1k"), ("--html", "--diff", str(MODEL)),
        (str(MODEL), "--html"), ("--html", "--log", "-"),
    ],
    ids=["over a model", "two documents", "sweep", "diff", "two models", "log"],
)  # fmt: skip
def test_refuses(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A page over a model's file, two documents on stdout, and questions of other kinds are usage errors."""
    assert main(["inspect", str(MODEL), *arguments]) == 2
    out = capsys.readouterr()
    assert "--html" in out.err
    assert not out.out


def test_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """Without FILE the page is all that stdout holds; it names the command for the same numbers."""
    assert main(["inspect", str(MODEL), "-c", "512", "--html"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("<!DOCTYPE html>")
    assert text.rstrip().endswith("</html>")
    assert "-c 512 --json</code>" in text


@pytest.mark.parametrize("n_layer", [1, 16, 17, 24, 80, 500])
def test_numbers_of_layers_have_room(n_layer: int) -> None:
    """However many columns there are, no more numbers stand below them than a narrow page has room for."""
    drawn = columns([(1, 1)] * n_layer, [str(i) for i in range(n_layer)], [""] * n_layer, label="")
    numbers = [int(text) for text in re.findall(r">(\d+)</text>", drawn)]
    assert numbers == list(range(0, n_layer, numbers[1] if n_layer > 1 else 1))
    assert min(n_layer, 8) <= len(numbers) <= 16
