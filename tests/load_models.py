"""The project's own small models as headers to be changed."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import archs
from tests.load_changes import Draft, read_draft


def own_drafts() -> Iterator[Draft]:
    """Every recorded model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        for name in archs.records():
            path.write_bytes(archs.header(name))
            draft = read_draft(path)
            yield Draft(name, draft.metadata, draft.tensors)
