"""The picture of a sweep: every line can be seen, and even growth is straight."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from bench.sweep_plot import figure_of, plot_sweep
from ggufphys import Params, open_gguf
from ggufphys.memory.predict import Predictor
from ggufphys.plan.sweep import Axis, Point, parse_sweep, sweep
from tests.ggufphys.models import tiny_llama


def swept(tmp_path: Path, text: str) -> tuple[list[Axis], list[Point]]:
    """The axes and points of a small model's sweep."""
    axes = list(parse_sweep(text))
    with open_gguf(tiny_llama(tmp_path / "tiny.gguf")) as gguf:
        return axes, list(sweep(Predictor(gguf).predict, Params(), axes))


def test_lines_on_each_other_are_one(tmp_path: Path) -> None:
    """Combinations that take the same are one line that names them all; others have their own."""
    axes, points = swept(tmp_path, "ctx=1k..8k,use_mlock=on,off,type_kv=f16,q8_0")
    (panel,) = figure_of("tiny", axes, points).axes

    labels = [str(line.get_label()) for line in panel.get_lines()]
    assert len(labels) == 2
    assert all(label.count("use_mlock") == 2 for label in labels)
    heights = [tuple(line.get_ydata()) for line in panel.get_lines()]
    assert len(set(heights)) == len(heights)


def test_lines_stand_in_the_order_of_their_values(tmp_path: Path) -> None:
    """512 comes before 2,048, though its text does not."""
    axes, points = swept(tmp_path, "ctx=4k..8k,ub=128,512,2048")
    (panel,) = figure_of("tiny", axes, points).axes
    assert [line.get_label() for line in panel.get_lines()] == [f"n_ubatch {n}" for n in (128, 512, 2048)]


def test_even_growth_is_straight(tmp_path: Path) -> None:
    """A cache grows evenly with the context, and both scales show it: the steps between the points are one slope."""
    axes, points = swept(tmp_path, "ctx=4k..64k")
    (panel,) = figure_of("tiny", axes, points).axes
    x, y = panel.get_lines()[0].get_data()

    assert (panel.get_xscale(), panel.get_yscale()) == ("linear", "linear")
    slopes = [(y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(len(x) - 1)]
    assert slopes == pytest.approx([slopes[0]] * len(slopes), rel=0.05)
    ticks = panel.get_xticks()
    assert ticks[-1] == 65536
    assert min(b - a for a, b in pairwise(ticks)) >= 0.05 * (65536 - 4096)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture_is_written(tmp_path: Path, suffix: str) -> None:
    """A picture is written in the format that its name says, of values that are no numbers, too."""
    axes, points = swept(tmp_path, "type_kv=f16,q8_0")
    plot_sweep(tmp_path / f"plot{suffix}", "tiny", axes, points)

    assert (tmp_path / f"plot{suffix}").read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_a_reader_who_has_seen_enough(tmp_path: Path) -> None:
    """The picture is written whoever reads the table (`| head -1`)."""
    model, picture = str(tiny_llama(tmp_path / "tiny.gguf")), tmp_path / "plot.svg"
    command = [
        sys.executable,
        "-P",
        "-m",
        "ggufphys",
        "inspect",
        model,
        "--sweep",
        "ctx=1k..4k",
        "--plot",
        str(picture),
    ]
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    with open(writing, "wb") as stdout:  # noqa: PTH123
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert picture.exists()


@pytest.mark.parametrize("name", [r"a$\foo$", "\udcff\udcfe", "_hidden", "two\nlines", "x" * 300])
def test_a_stranger_s_name_in_a_picture(name: str, tmp_path: Path) -> None:
    """What is no formula, no character or too long is shown, and ends no picture."""
    plot_sweep(tmp_path / "plot.png", name, *swept(tmp_path, "ctx=1k,2k"))
    assert (tmp_path / "plot.png").stat().st_size > 10_000
