"""LM Studio's folder: `models/PUBLISHER/REPOSITORY/file.gguf` below its home, or where its settings say.

No variable moves it: `~/.lmstudio-home-pointer` names its home, else it is the older ~/.cache/lm-studio where that
exists, or ~/.lmstudio; `downloadsFolder` in its settings.json names another folder for models.

Source: LM Studio's documentation (importing models); lmstudio-ai/lms, findLMStudioHome.
"""

from collections.abc import Iterator
from pathlib import Path

from ggufphys.paths import is_folder
from ggufphys.stores.places import Places, Stored, gguf_files
from ggufphys.units import parse_json


def lm_studio_models(places: Places) -> Iterator[Stored]:
    """Every GGUF file in its folder of models."""
    folder = lm_studio_folder(places)
    for path in sorted(gguf_files(folder)):
        yield Stored(store="LM Studio", name=path.relative_to(folder).as_posix(), path=str(path))


def lm_studio_folder(places: Places) -> Path:
    """Where it keeps models."""
    home = _home(places)
    try:
        named = parse_json((home / "settings.json").read_bytes())["downloadsFolder"]
        if isinstance(named, str) and is_folder(named):
            return Path(named)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return home / "models"


def _home(places: Places) -> Path:
    try:
        named = Path((places.home / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip())
        if named.is_absolute():
            return named
    except (OSError, ValueError):
        pass
    older = places.home / ".cache" / "lm-studio"
    return older if is_folder(str(older)) else places.home / ".lmstudio"
