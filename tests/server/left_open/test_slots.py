"""How many answers run side by side, in the words of the line with the address."""

import argparse

import pytest

import refengine
from ggufphys.embedded import MODEL
from server.engine.in_numpy.engine import NumpyRunner
from server.flags.serve import add_arguments
from server.start.asked import asked_model
from server.start.main import how_it_is_run


def said(*flags: str) -> str:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    args = parser.parse_args([str(MODEL), "-c", "256", *flags])
    return how_it_is_run(args, asked_model(args))


def test_one_slot_names_the_flag_for_more() -> None:
    """Who has one slot is told how to have more."""
    assert "1 slot of 256 tokens, so requests run one after another (-np N runs N side by side)" in said("-np", "1")


def test_no_flag_is_named_that_is_refused() -> None:
    """The numpy engine refuses -np, so neither the line with the address nor that of requests that wait names it."""
    line = said("--engine", "numpy")
    assert "requests run one after another" in line
    assert "-np" not in line
    with pytest.raises(ValueError, match="it runs one sequence"):
        said("--engine", "numpy", "-np", "2")
    assert not NumpyRunner(refengine.load(MODEL, n_ctx=256), "").info.takes_slots
