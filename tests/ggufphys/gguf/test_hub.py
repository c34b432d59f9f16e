"""References to the Hub: what they name, what is listed, who is logged in, what refusals advise."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufphys.errors import FetchError
from ggufphys.gguf import hub
from ggufphys.gguf.http import Access
from ggufphys.gguf.hub import HubFile, Reference, parse_reference
from ggufphys.gguf.locate import is_remote, open_model
from ggufphys.gguf.remote import RemoteReader, address
from tests.ggufphys.gguf.http_server import Site, serving
from tests.ggufphys.gguf.remote_files import model, shards, without_environment

TREE = "/api/models/me/tiny/tree/main?recursive=1"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_environment(monkeypatch, tmp_path)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A Hub with one repository of one model and an attachment."""
    files = {"/me/tiny/resolve/main/tiny-Q4_K_M.gguf": model()}
    with serving(Site(files=files)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url + "/")
        listing(running, "README.md", "tiny-Q4_K_M.gguf", "mmproj-tiny-f16.gguf")
        yield running


def listing(site: Site, *paths: str) -> None:
    """What the Hub says is in the repository."""
    rows = [{"type": "file", "path": path, "size": 1000 * (i + 1), "oid": "0"} for i, path in enumerate(paths)]
    site.files[TREE] = json.dumps([{"type": "directory", "path": "Q4"}, *rows]).encode()


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("hf:me/tiny", Reference(repo="me/tiny")),
        ("hf:me/tiny-1.5B_v2", Reference(repo="me/tiny-1.5B_v2")),
        ("hf:me/tiny:a/b.gguf", Reference(repo="me/tiny", file="a/b.gguf")),
        ("hf:me/tiny@v1.0:b.gguf", Reference(repo="me/tiny", revision="v1.0", file="b.gguf")),
        ("hf:me/tiny@refs/pr/1", Reference(repo="me/tiny", revision="refs/pr/1")),
        ("hf:me/tiny:Q4_K_M", Reference(repo="me/tiny", file="Q4_K_M")),
    ],
)
def test_references(text: str, reference: Reference) -> None:
    """Repository, revision and file are told apart, and put together again."""
    assert parse_reference(text) == reference
    assert str(reference) == text


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's page is its bytes; a revision with slashes is one segment; other servers' addresses are left alone."""
    reference = Reference(repo="me/tiny", revision="refs/pr/1")
    page = "https://huggingface.co/me/tiny/blob/main/a/blob/b.gguf"

    assert hub.file_url(reference, "a/b c.gguf") == "https://huggingface.co/me/tiny/resolve/refs%2Fpr%2F1/a/b%20c.gguf"
    assert address(page)[0] == "https://huggingface.co/me/tiny/resolve/main/a/blob/b.gguf"
    assert address("https://example.org/a/b/blob/c.gguf") == ("https://example.org/a/b/blob/c.gguf", Access())
    assert [is_remote(t) for t in ("hf:a/b", "https://x/y", "http://x/y", "./hf:a", "model.gguf")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org")
    assert address(page)[0] == page


def test_only_model(site: Site) -> None:
    """A repository with one model needs no file name: attachments don't count."""
    gguf = RemoteReader().open("hf:me/tiny")

    assert gguf.location == f"{site.url}/me/tiny/resolve/main/tiny-Q4_K_M.gguf"
    assert [path for path, _ in site.requests] == [TREE, "/me/tiny/resolve/main/tiny-Q4_K_M.gguf"]


def test_named_file(site: Site) -> None:
    """A named file is fetched without asking for the list."""
    assert RemoteReader().open("hf:me/tiny:tiny-Q4_K_M.gguf").architecture == "llama"
    assert len(site.requests) == 1
    with pytest.raises(FetchError, match=r"other\.gguf: the server answered 404 Not Found: no such file"):
        RemoteReader().open("hf:me/tiny:other.gguf")


def test_choices(site: Site) -> None:
    """Of several models all are listed as what to say next; a split one is one, with the bytes of its shards."""
    listing(site, "a-Q8_0.gguf", "b/a-Q4_K_M-00001-of-00002.gguf", "b/a-Q4_K_M-00002-of-00002.gguf", "mmproj-a.gguf")
    with pytest.raises(ValueError, match="hf:me/tiny: 2 GGUF files; say which:") as caught:
        hub.resolve("hf:me/tiny")

    assert str(caught.value).splitlines()[1:] == [
        "  hf:me/tiny:a-Q8_0.gguf                       1000 B",
        "  hf:me/tiny:b/a-Q4_K_M-00001-of-00002.gguf  4.88 KiB",
    ]


@pytest.mark.parametrize(
    ("tag", "path"),
    [
        ("Q4_K_M", "a-Q4_K_M.gguf"),
        ("q4_k_m", "a-Q4_K_M.gguf"),
        ("UD-Q4_K_XL", "UD/a-UD-Q4_K_XL-00001-of-00002.gguf"),
        ("mmproj", "mmproj-F16.gguf"),
        ("F16", "a.F16.gguf"),
    ],
)
def test_quantisation_instead_of_file(tag: str, path: str) -> None:
    """The name of a quantisation will do, as behind llama-server's -hf; it must be whole."""
    paths = ("a-Q4_K_M.gguf", "a-IQ4_K_M.gguf", "a-Q4_K_S.gguf", "a.F16.gguf", "mmproj-F16.gguf",
             "UD/a-UD-Q4_K_XL-00001-of-00002.gguf")  # fmt: skip
    files = [HubFile(path=p, nbytes=1) for p in paths]

    assert hub.choose(Reference(repo="me/tiny", file=tag), files).path == path


@pytest.mark.parametrize(("tag", "message"), [("Q4", "no GGUF file is named so"), ("Q4_K_M", "2 GGUF files are named")])
def test_ambiguous_quantisation(tag: str, message: str) -> None:
    """A name that is none's or several files' is a usage error that lists them."""
    files = [HubFile(path=f"{folder}/a-Q4_K_M.gguf", nbytes=1) for folder in "xy"]
    with pytest.raises(ValueError, match=message) as caught:
        hub.choose(Reference(repo="me/tiny", revision="v2", file=tag), files)
    assert "hf:me/tiny@v2:x/a-Q4_K_M.gguf" in str(caught.value)


def test_no_model(site: Site) -> None:
    """A repository without GGUF files is an error that says so."""
    listing(site, "model.safetensors")
    with pytest.raises(FetchError, match="hf:me/tiny: no GGUF file in it"):
        hub.resolve("hf:me/tiny")


def test_pages(site: Site) -> None:
    """A long list comes in pages, and all are read; a page elsewhere is not asked for."""
    second = "/api/models/me/tiny/tree/main?recursive=1&cursor=x"
    listing(site, "README.md")
    site.files[second] = site.files[TREE].replace(b"README.md", b"tiny-Q4_K_M.gguf")
    site.headers[TREE] = {"Link": f'<{site.url}{second}>; rel="next"'}
    site.headers[second] = {"Link": '<http://nowhere.invalid/page>; rel="next"'}

    assert [f.path for f in hub.list_files(Reference(repo="me/tiny"))] == ["tiny-Q4_K_M.gguf"]


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"error": "no"}', b'[{"path": 1}]', b"[1]", b'[{"path":"a.gguf","size":"x"}]']
)
def test_strange_listing(site: Site, body: bytes) -> None:
    """An answer that is no list of files is an error in words."""
    site.files[TREE] = body
    with pytest.raises(FetchError, match="expected JSON|expected a list of files"):
        hub.resolve("hf:me/tiny")


def test_token(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The token of HF_TOKEN, or of the file `hf auth login` wrote, goes to the Hub, and to nobody else."""
    site.login = "Bearer hf_secret"
    with pytest.raises(FetchError, match=r"401 Unauthorized: it is private.*set HF_TOKEN, or run `hf auth login`"):
        RemoteReader().open("hf:me/tiny")

    monkeypatch.setenv("HF_TOKEN", "hf_secret\n")
    with serving(Site(files={"/blob": model()})) as storage:
        site.redirects["/me/tiny/resolve/main/moved.gguf"] = f"{storage.url}/blob"
        assert RemoteReader().open("hf:me/tiny").architecture == "llama"
        assert RemoteReader().open(site.url + "/me/tiny/resolve/main/moved.gguf").architecture == "llama"
        assert RemoteReader().open(storage.url + "/blob").architecture == "llama"
        assert not [h for _, h in storage.requests if "authorization" in h]

    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "token").write_text("hf_secret\n")
    assert RemoteReader().open("hf:me/tiny").architecture == "llama"
    (tmp_path / "elsewhere").write_text("hf_wrong")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "elsewhere"))
    site.refusal = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
    with pytest.raises(
        FetchError, match=r"403 Forbidden \(Access is restricted\.\): the token that was sent .* has no access"
    ) as caught:
        RemoteReader().open("hf:me/tiny:tiny-Q4_K_M.gguf")
    assert "hf_wrong" not in str(caught.value)


def test_open_model(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function opens whatever the user names; headers are cached in the user's cache unless asked not to be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "local.gguf").write_bytes(model())
    with open_model(tmp_path / "local.gguf") as gguf:
        assert gguf.url == ""
    assert open_model("hf:me/tiny:Q4_K_M", use_cache=False).url
    assert not (tmp_path / "cache").exists()
    sizes = []
    for _ in range(2):
        assert open_model("hf:me/tiny:Q4_K_M").architecture == "llama"
        sizes.append(site.sent_bytes)
    assert sizes[1] - sizes[0] == len(site.files[TREE])
    assert len(list((tmp_path / "cache" / "ggufphys" / "headers").iterdir())) == 1


def test_split_model(site: Site) -> None:
    """Shards lie beside each other on the Hub too."""
    site.files |= {f"/me/tiny/resolve/main/{name}": data for name, data in shards("m").items()}
    listing(site, *shards("m"))

    assert len(RemoteReader().open("hf:me/tiny").tensors) == 20
