"""Where on this machine is the file that `hf:owner/repo[@revision][:file]` names, if it has been downloaded?

`hf download` and llama-server's `-hf` put files into the same cache, by repository and commit.
"""

from pathlib import Path

from ggufphys.errors import GGUFError
from ggufphys.gguf.hub import choose, parse_reference, split_models_as_one
from ggufphys.stores.hub_cache import hub_folder, snapshots_of
from ggufphys.stores.places import Places, gguf_files, here


def downloaded_path(text: str, places: Places | None = None) -> Path:
    """The file behind a reference, of a split model its first shard.

    Raises:
        GGUFError: nothing of that repository is there; the message says how to get it, and where it was looked for.
        ValueError: not a reference, or none or several of the files there may be meant; the message lists them.
    """
    reference, places = parse_reference(text), places or here()
    for snapshot in snapshots_of(reference.repo, reference.revision, places):
        there = [path for path in gguf_files(snapshot) if path.exists()]  # not a link whose blob is gone
        sizes = {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in there}
        if reference.file in sizes:
            return snapshot / reference.file
        if sizes:
            return snapshot / choose(reference, split_models_as_one(sizes), kind="downloaded GGUF file").path
    revision = "" if reference.revision == "main" else f" --revision {reference.revision}"
    file = f" {reference.file}" if reference.file.endswith(".gguf") else ""
    raise GGUFError(
        f"{text}: its weights are needed here, and no GGUF file of it has been downloaded to {hub_folder(places)} "
        f"(HF_HUB_CACHE, HF_HOME say where else): `hf download {reference.repo}{file}{revision}`, or give a file's path"
    )
