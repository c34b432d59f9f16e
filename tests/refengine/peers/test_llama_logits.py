"""llama.cpp's logits by way of a file: what if it cannot be written?"""

from pathlib import Path
from typing import Any

import pytest

import refengine
from ggufphys.embedded import MODEL
from ggufphys.errors import OutputError
from refengine.checks.logits import steps
from refengine.peers.llama_logits import LlamaRequest, llama_logits

FULL = Path("/dev/full")


def test_no_room_for_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is told in one line that names the way out, not as the end of llama.cpp."""
    pytest.importorskip("llama_cpp")
    if not FULL.exists():
        pytest.skip("no /dev/full here")
    as_json = LlamaRequest.as_json

    def into_full(request: LlamaRequest, _out: Path) -> dict[str, Any]:
        return as_json(request, FULL)

    monkeypatch.setattr(LlamaRequest, "as_json", into_full)
    model = refengine.load(MODEL, n_ctx=256)
    request = LlamaRequest(path=MODEL, context=model.context, batches=steps([1, 2], 1), n_threads=1)
    with pytest.raises(OutputError, match=r"^cannot write .*: No space left on device; another TMPDIR .*$"):
        llama_logits([request])
