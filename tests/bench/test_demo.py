"""`ggufphys demo`: what ends it."""

from contextlib import nullcontext

import pytest

from bench import demo
from ggufphys.cli import INTERRUPTED, main


@pytest.mark.parametrize(("code", "demo_code"), [(INTERRUPTED, INTERRUPTED), (1, 1)])
def test_steps_that_do_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, demo_code: int
) -> None:
    """Ctrl-C in a step's subcommand ends the whole demo; a step that fails does not, but counts."""
    called: list[str] = []

    def command(words: list[str]) -> int:
        called.append(words[0])
        return code

    monkeypatch.setattr(demo, "ggufphys", command)
    monkeypatch.setattr(demo, "STEPS", demo.STEPS[:1] * 2)

    with pytest.raises(SystemExit) if code == INTERRUPTED else nullcontext() as ended:
        assert main(["demo"]) == demo_code
    assert ended is None or ended.value.code == demo_code
    assert called == ["inspect"] * (1 if code == INTERRUPTED else 2)
    assert ("FAILED inspect" in capsys.readouterr().out) == (code == 1)
