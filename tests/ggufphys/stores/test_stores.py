"""Models that other programs have downloaded are found where those keep them."""

import json
from pathlib import Path

import pytest

from ggufphys import GGUFError
from ggufphys.stores import stored_models
from ggufphys.stores.ollama import ollama_path
from tests.ggufphys.stores.machine import hub_file, ollama_model, places, plain_file


def test_every_store(tmp_path: Path) -> None:
    """One model of each store is found, under its name there, at its path."""
    expected = {
        ("Hugging Face", "owner/repo/a.gguf"): hub_file(tmp_path / ".cache/huggingface/hub", "owner/repo", "a.gguf"),
        ("llama.cpp", "ggml-org_b.gguf"): plain_file(tmp_path / ".cache/llama.cpp/ggml-org_b.gguf"),
        ("Ollama", "c:1b"): ollama_model(tmp_path / ".ollama/models", "registry.ollama.ai/library/c/1b"),
        ("LM Studio", "pub/repo/d.gguf"): plain_file(tmp_path / ".lmstudio/models/pub/repo/d.gguf"),
    }

    assert {(s.store, s.name): Path(s.path) for s in stored_models(places(tmp_path))} == expected


def test_empty_machine(tmp_path: Path) -> None:
    """A machine without any of the programs has no models, and that is no error."""
    assert stored_models(places(tmp_path)) == ()


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("LLAMA_CACHE", ""),
    ],
)
def test_variables_move_the_hub_cache(tmp_path: Path, variable: str, folder: str) -> None:
    """Each variable that moves the Hub's cache, or llama.cpp's of the same layout, is followed."""
    hub_file(tmp_path / "moved" / folder, "owner/repo", "q4/a.gguf")

    (found,) = stored_models(places(tmp_path, **{variable: str(tmp_path / "moved")}))
    assert found.name == "owner/repo/q4/a.gguf"
    assert found.store == ("llama.cpp" if variable == "LLAMA_CACHE" else "Hugging Face")


@pytest.mark.parametrize(
    ("system", "folder", "environment"),
    [
        ("Linux", ".cache/llama.cpp", {}),
        ("Linux", "xdg/llama.cpp", {"XDG_CACHE_HOME": "xdg"}),
        ("Darwin", "Library/Caches/llama.cpp", {}),
        ("Windows", "local/llama.cpp", {"LOCALAPPDATA": "local"}),
        ("Linux", "elsewhere", {"LLAMA_CACHE": "elsewhere"}),
    ],
)
def test_llama_cpp_folder(tmp_path: Path, system: str, folder: str, environment: dict[str, str]) -> None:
    """llama.cpp's older folder is where each system has its caches, or where LLAMA_CACHE says."""
    plain_file(tmp_path / folder / "a.gguf")
    moved = {name: str(tmp_path / value) for name, value in environment.items()}

    assert [s.name for s in stored_models(places(tmp_path, system, **moved))] == ["a.gguf"]


def test_shared_cache_is_listed_once(tmp_path: Path) -> None:
    """Where LLAMA_CACHE is the Hub's cache, its files are listed once."""
    hub = tmp_path / "hub"
    hub_file(hub, "owner/repo", "a.gguf")

    assert len(stored_models(places(tmp_path, LLAMA_CACHE=str(hub), HF_HUB_CACHE=str(hub)))) == 1


def test_file_of_several_revisions(tmp_path: Path) -> None:
    """A file that two revisions have is listed once, where `main` has it; one that main lacks is listed too."""
    hub = tmp_path / "hub"
    hub_file(hub, "owner/repo", "a.gguf", commit=40 * "a", ref="old")
    hub_file(hub, "owner/repo", "gone.gguf", commit=40 * "a", ref="old")
    kept = hub_file(hub, "owner/repo", "a.gguf", commit=40 * "b")

    found = {s.name: s.path for s in stored_models(places(tmp_path, HF_HUB_CACHE=str(hub)))}
    assert found.keys() == {"owner/repo/a.gguf", "owner/repo/gone.gguf"}
    assert found["owner/repo/a.gguf"] == str(kept)


@pytest.mark.parametrize(
    ("manifest", "names"),
    [
        ("registry.ollama.ai/library/llama3.2/latest", ("llama3.2", "llama3.2:latest", "Llama3.2", "library/llama3.2")),
        ("registry.ollama.ai/library/llama3.2/1b", ("llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b")),
        ("registry.ollama.ai/me/mine/latest", ("me/mine",)),
        ("hf.co/owner/repo-GGUF/Q4_K_M", ("hf.co/owner/repo-GGUF:Q4_K_M", "hf.co/owner/repo-gguf:q4_k_m")),
    ],
)
def test_ollama_addresses(tmp_path: Path, manifest: str, names: tuple[str, ...]) -> None:
    """A model goes by every name that Ollama takes, and by the one that the list shows."""
    machine = places(tmp_path, OLLAMA_MODELS=str(tmp_path / "models"))
    blob = ollama_model(tmp_path / "models", manifest)
    (listed,) = stored_models(machine)

    assert listed.address == f"ollama:{listed.name}"
    for name in (*names, listed.name):
        assert ollama_path(f"ollama:{name}", machine) == blob


def test_ollama_service(tmp_path: Path) -> None:
    """What Linux's service keeps is found beside the user's own, unless OLLAMA_MODELS says where."""
    ollama_model(tmp_path / "root/usr/share/ollama/.ollama/models", "registry.ollama.ai/library/served/latest")
    ollama_model(tmp_path / ".ollama/models", "registry.ollama.ai/library/own/latest")

    assert [s.name for s in stored_models(places(tmp_path))] == ["own", "served"]
    assert stored_models(places(tmp_path, OLLAMA_MODELS=str(tmp_path / "other"))) == ()


def test_unknown_ollama_model(tmp_path: Path) -> None:
    """A name that is not there is refused with the folder, the variable and the names that are."""
    ollama_model(tmp_path / ".ollama/models", "registry.ollama.ai/library/llama3.2/1b")

    with pytest.raises(GGUFError, match=r"ollama:llama3\.2: no such model in .*OLLAMA_MODELS.*; there: llama3\.2:1b"):
        ollama_path("ollama:llama3.2", places(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"layers": 3}', '{"layers": [{"mediaType": "application/vnd.ollama.image.model"}]}', "\x00",
     '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"}]}'],
)  # fmt: skip
def test_broken_manifests(tmp_path: Path, text: str) -> None:
    """A manifest that makes no sense, or leads out of the store, is none, and hides no other."""
    folder = tmp_path / ".ollama/models"
    ollama_model(folder, "registry.ollama.ai/library/good/latest")
    ollama_model(folder, "registry.ollama.ai/library/tensors/latest", kind="application/vnd.ollama.image.tensor")
    (folder / "manifests/registry.ollama.ai/library/good/broken").write_text(text)

    assert [s.name for s in stored_models(places(tmp_path))] == ["good"]


@pytest.mark.parametrize("way", ["pointer", "older", "settings"])
def test_lm_studio_folder(tmp_path: Path, way: str) -> None:
    """LM Studio's models are found below the home that its pointer names, its older home, or where its settings say."""
    home = tmp_path / {"pointer": "moved", "older": ".cache/lm-studio", "settings": ".lmstudio"}[way]
    home.mkdir(parents=True)
    if way == "pointer":
        (tmp_path / ".lmstudio-home-pointer").write_text(f"{home}\n")
    models = tmp_path / "elsewhere" if way == "settings" else home / "models"
    plain_file(models / "pub/repo/a.gguf")
    if way == "settings":
        (home / "settings.json").write_text(json.dumps({"downloadsFolder": str(models)}))

    assert [s.name for s in stored_models(places(tmp_path))] == ["pub/repo/a.gguf"]


def test_links_to_themselves(tmp_path: Path) -> None:
    """A snapshot's link that leads back to itself hides no other file."""
    good = hub_file(tmp_path / "hub", "owner/repo", "a.gguf")
    (good.parent / "b.gguf").symlink_to(good.parent / "b.gguf")

    names = [s.name for s in stored_models(places(tmp_path, HF_HUB_CACHE=str(tmp_path / "hub")))]
    assert names == ["owner/repo/a.gguf", "owner/repo/b.gguf"]


def test_folders_that_cannot_be_asked_about(tmp_path: Path) -> None:
    """What the system refuses to tell of one store (other users', as the service's of Ollama on many a Linux) hides no
    other. Names that are too long are refused so, too, and for root.
    """
    secret = tmp_path / ("x" * 300)
    moved = dict.fromkeys(("HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS"), str(secret))
    plain_file(tmp_path / ".lmstudio/models/pub/repo/mine.gguf")

    assert [s.name for s in stored_models(places(tmp_path, **moved))] == ["pub/repo/mine.gguf"]
    assert stored_models(places(secret)) == ()
