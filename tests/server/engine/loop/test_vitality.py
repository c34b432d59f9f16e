"""A process that hangs: when that is told, and when it is too much."""

from server.engine.loop.vitality import LOOK_S, Bounds, Vitality


def pass_s(vitality: Vitality, seconds: float) -> None:
    for _ in range(round(seconds / LOOK_S)):
        vitality.look(LOOK_S)


def test_silence() -> None:
    """A process that says nothing is told of after a quarter of the bound, and too silent behind it; a word ends it."""
    vitality = Vitality(Bounds(silent_s=60, stuck_s=600))
    pass_s(vitality, 14)
    assert not vitality.complaint
    pass_s(vitality, 1)
    assert "silent for 15 s" in vitality.complaint
    assert not vitality.verdict
    vitality.heard()
    assert not vitality.complaint
    pass_s(vitality, 60)
    assert "silent for 60 s" in vitality.verdict


def test_a_step_in_which_nothing_moves() -> None:
    """One that speaks and has work is stuck when nothing of it moves; a long step whose nodes are done is not."""
    vitality = Vitality(Bounds(silent_s=60, stuck_s=600))
    for n_nodes in range(2000):
        vitality.heard()
        vitality.beat((7, n_nodes))
        pass_s(vitality, 1)
        assert not vitality.complaint
    for _ in range(600):  # the first of these still moves
        vitality.heard()
        vitality.beat((7, 2000))
        pass_s(vitality, 1)
    assert "stuck for 600 s" in vitality.verdict
    vitality.beat((8, 0))
    assert not vitality.complaint


def test_idle_is_not_stuck() -> None:
    """Who has nothing to do need not move."""
    vitality = Vitality(Bounds(silent_s=60, stuck_s=600))
    for _ in range(1000):
        vitality.heard()
        vitality.beat(None)
        pass_s(vitality, 1)
    assert not vitality.complaint


def test_a_machine_that_slept() -> None:
    """An hour between two looks is not an hour of silence: the parent slept, too."""
    vitality = Vitality(Bounds(silent_s=60, stuck_s=600))
    vitality.beat((1, 1))
    vitality.look(3600)
    assert not vitality.complaint


def test_no_bound() -> None:
    """0 is for ever."""
    vitality = Vitality(Bounds(silent_s=0, stuck_s=0))
    vitality.beat((1, 1))
    pass_s(vitality, 5000)
    assert not vitality.complaint
