"""The program on disk, beside the one that was started."""

import os
from pathlib import Path

from server.engine.worker.program import replaced, stamps


def test_what_counts_as_replaced(tmp_path: Path) -> None:
    """Modules that are written, renamed over, added or gone do; other files and readers don't."""
    module = tmp_path / "server" / "engine" / "loop.py"
    module.parent.mkdir(parents=True)
    module.write_text("x = 1\n")
    before = stamps(tmp_path)

    def told() -> str:
        return replaced(before, stamps(tmp_path))

    assert str(module) in before
    assert len(before) == 2  # and the interpreter
    (module.parent / "loop.cpython-313.pyc").touch()
    assert not told()
    module.with_name("new.py").touch()
    assert "new.py)" in told()
    module.with_name("new.py").unlink()
    assert not told()
    newer = module.with_name("newer")
    newer.write_text("x = 2\n")
    os.utime(newer, ns=before[str(module)][2:] * 2)  # as long, and as old: pip keeps times, too
    newer.rename(module)
    assert "loop.py)" in told()
    module.unlink()
    assert "start the server again" in told()


def test_nothing_is_replaced_here() -> None:
    """All modules of a worker are looked at, in the checkout or where it is installed."""
    found = stamps()
    for module in ("server/engine/worker/process.py", "ggufphys/params.py"):
        assert any(Path(path).match(module) for path in found)
    assert not replaced(found, stamps())
