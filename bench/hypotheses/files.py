"""What is an experiment about? A published model's shape, as a header without weights, and how it is run."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.synth.sparse import write_sparse
from ggufphys import GGUFFile, Params, open_gguf
from ggufphys.synth import plan_file, shape_named

Setup = Mapping[str, Any]
"""What a quantity is asked for: keys of an experiment's `setup`."""


@contextmanager
def shape_of(setup: Setup, file_type: str = "") -> Iterator[GGUFFile]:
    """A published model's header, without weights: `shape` as `type`.

    Raises:
        ValueError: an unknown shape or type.
    """
    plan = plan_file(shape_named(setup["shape"]), file_type or setup["type"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shape.gguf"
        write_sparse(plan, path)
        with open_gguf(path) as gguf:
            yield gguf


def params_of(setup: Setup) -> Params:
    """How it is run: `ctx`, `n_seq`, `type_k`, `type_v`, and `repack`, which is off as on a GPU unless asked for."""
    return Params(
        n_ctx=setup.get("ctx", 4096),
        n_seq_max=setup.get("n_seq", 1),
        type_k=setup.get("type_k", "f16"),
        type_v=setup.get("type_v", "f16"),
        use_extra_bufts=setup.get("repack", False),
    )
