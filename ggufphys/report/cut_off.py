"""What is known of a file whose header ends too early, an unfinished download mostly?"""

from typing import Final

from ggufphys.errors import TruncatedError
from ggufphys.loads import Refusal
from ggufphys.report.inspection import SCHEMA_VERSION, dumps
from ggufphys.report.loads import loads_json

WIDTH: Final = 80  # of a value


def cut_off_text(path: str, error: TruncatedError) -> str:
    """What is known of a file whose header ends too early."""
    known = {key: _short(_shown(value)) for key, value in error.metadata.items()}
    name = known.pop("general.name", path)
    architecture = known.pop("general.architecture", "no architecture")
    lines = [f"{name}: {architecture}, as far as the header goes", ""]
    width = max(map(len, known), default=0)
    return "\n".join([*lines, *(f"{key:{width}}  {value}" for key, value in known.items())])


def cut_off_json(path: str, error: TruncatedError) -> str:
    """What is known of such a file as a document, with the keys that were read under `model.metadata`."""
    known = {key: _shown(value) for key, value in error.metadata.items()}
    reason = Refusal(
        what="the header ends too early", where="header", found=str(error), expected="a whole header",
        source="llama.cpp 0c1e570 ggml/src/gguf.cpp, gguf_init_from_reader",
    )  # fmt: skip
    model = {
        "path": path,
        "architecture": known.get("general.architecture"),
        "name": known.get("general.name"),
        "metadata": known,
    }
    return dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "model": model,
            "loads": loads_json([reason]),
            "params": None,
            "memory": None,
        }
    )


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def _shown(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


__all__ = ["cut_off_json", "cut_off_text"]
