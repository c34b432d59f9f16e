"""Which file is an experiment about? A real one, the embedded model as a type, or a published model's shape."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.derive import derived
from bench.synth.replacing import write_sparse
from ggufphys import GGUFFile, Params, open_gguf
from ggufphys.synth import plan_file, shape_named


@contextmanager
def shape_of(setup: Mapping[str, Any], file_type: str = "") -> Iterator[GGUFFile]:
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


def params_of(setup: Mapping[str, Any]) -> Params:
    """How it is run: `ctx`, `n_seq`, `type_k`, `type_v`, and `repack`, which is off as on a GPU unless asked for."""
    return Params(
        n_ctx=setup.get("ctx", 4096),
        n_seq_max=setup.get("n_seq", 1),
        type_k=setup.get("type_k", "f16"),
        type_v=setup.get("type_v", "f16"),
        use_extra_bufts=setup.get("repack", False),
    )


def run_file(setup: Mapping[str, Any], model: Path | None, file_type: str = "") -> Path:
    """A file that can be run: `model` where one is given, else the embedded one, as `type`.

    A model that is of that type already is taken as it is, another is quantised.
    """
    wanted = file_type or setup.get("type", "F16")
    return derived(wanted, model) if model is not None and wanted else derived(wanted)
