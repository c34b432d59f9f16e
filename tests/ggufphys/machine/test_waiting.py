"""How llama.cpp's threads wait in a child process: as the user says, else as the child can look after."""

import pytest

from ggufphys.machine.children import environment
from ggufphys.machine.llama_env import prepare


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GGUFPHYS_OMP_WAIT_POLICY"):
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
