"""How llama.cpp's threads wait in a child process: as the user says, else as the child can look after."""

import pytest

from ggufphys.machine.children import environment
from ggufphys.machine.llama_env import prepare


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GGUFPHYS_OMP_WAIT_POLICY", "GGML_NO_BACKTRACE"):
        monkeypatch.setenv(name, "")  # so that it is as it was behind the test, whatever is set within
        monkeypatch.delenv(name)


def test_a_process_that_runs_llama_cpp_starts_children_that_spin() -> None:
    """What was set for this process, or by the one that started it, is not taken for the user's wish."""
    prepare()

    assert environment()["OMP_WAIT_POLICY"] == "passive"
    assert environment(spinning=True)["OMP_WAIT_POLICY"] == "active"


def test_what_the_user_says_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy of the user's own goes to all children."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    prepare()

    assert environment(spinning=True)["OMP_WAIT_POLICY"] == "PASSIVE"


def test_other_settings_of_the_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """How often threads look before they sleep, and whether an abort is traced, may be set without a policy."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "100")
    monkeypatch.setenv("GGML_NO_BACKTRACE", "0")
    prepare()
    found = environment(spinning=True)

    assert found["OMP_WAIT_POLICY"] == "active"
    assert (found["GOMP_SPINCOUNT"], found["GGML_NO_BACKTRACE"]) == ("100", "0")


def test_a_grandchild_that_does_not_look_after_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a spinning child was given by us is not passed on to its own children."""
    for name, value in environment(spinning=True).items():
        monkeypatch.setenv(name, value)
    found = environment()

    assert found["OMP_WAIT_POLICY"] == "passive"
    assert "GOMP_SPINCOUNT" not in found
