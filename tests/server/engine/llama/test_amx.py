"""A build whose AMX kernels crash must not take the server with it."""

import signal
import sys

import pytest

from ggufphys.params import Params
from server.engine.llama import amx

WITH_AMX = "CPU : AVX512 = 1 | AMX_INT8 = 1 | REPACK = 1 | "
WITHOUT = "CPU : AVX512 = 1 | REPACK = 1 | "


def never() -> int:
    raise AssertionError("the trial must not run")


def test_no_trial_without_amx() -> None:
    """Without AMX in the build, or without extra buffers, nothing is tried and nothing changes."""
    plain = Params(use_extra_bufts=False)

    assert amx.guard(Params(), info=WITHOUT, probe=never) == (Params(), "")
    assert amx.guard(plain, info=WITH_AMX, probe=never) == (plain, "")


def test_good_build() -> None:
    """A trial that ends well changes nothing."""
    assert amx.guard(Params(), info=WITH_AMX, probe=lambda: 0) == (Params(), "")


@pytest.mark.parametrize(
    ("status", "said"),
    [(-signal.SIGSEGV, "SIGSEGV"), (-signal.SIGABRT, "SIGABRT"), (0xC0000005, "0xc0000005"), (None, "hung")],
)
def test_crashing_build(status: int | None, said: str) -> None:
    """A trial that is killed or hangs turns the extra buffers off, with one line that says so."""
    params, warning = amx.guard(Params(n_ctx=7), info=WITH_AMX, probe=lambda: status)

    assert params == Params(n_ctx=7, use_extra_bufts=False)
    assert said in warning
    assert "\n" not in warning


def test_trial_that_says_nothing() -> None:
    """A trial that could not be made (no memory, no temporary folder) leaves things as they are, with a warning."""
    params, warning = amx.guard(Params(), info=WITH_AMX, probe=lambda: 1)

    assert params == Params()
    assert "ended with code 1" in warning


def test_the_trial_itself() -> None:
    """The trial runs in a child, wherever that starts, and this build survives it."""
    assert amx.run_probe() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_trial_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that really dies by a signal is seen as dead."""
    script = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(amx, "PROBE", [sys.executable, "-c", script])
    status = amx.run_probe()

    assert status == -signal.SIGSEGV
    assert amx.guard(Params(), info=WITH_AMX)[0] == Params(use_extra_bufts=False)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_trial_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that does not end is ended."""
    monkeypatch.setattr(amx, "PROBE", [sys.executable, "-c", "import time; time.sleep(60)"])

    assert amx.run_probe(timeout_s=0.2) is None
