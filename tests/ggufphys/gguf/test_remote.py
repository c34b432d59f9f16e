"""Remote models: the header and no more, through whatever servers and connections do."""

import functools
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggufphys import GGUFError, GGUFFile, Params, open_gguf, predict_memory
from ggufphys.errors import FetchError
from ggufphys.gguf.header_cache import HeaderCache
from ggufphys.gguf.remote import RemoteReader
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed, encode_header
from tests.ggufphys.gguf.http_server import Site, serving
from tests.ggufphys.gguf.remote_files import model, shards, without_environment
from tests.ggufphys.models import llama_tensors

MIB = 1 << 20
PATH = "/models/tiny.gguf"
LARGE = "/models/large.gguf"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_environment(monkeypatch, tmp_path)


@pytest.fixture
def site() -> Iterator[Site]:
    """A server with one small model, and one whose header is 7 MiB and whose data would be 24 MiB."""
    with serving(Site(files={PATH: model(), LARGE: large_model()})) as running:
        yield running


@functools.cache
def large_model() -> bytes:
    """Made once."""
    return model(vocabulary(220_000), data=24 * MIB)


def vocabulary(n_tokens: int) -> dict[str, Any]:
    """Tokens and merges of the size that real models have."""
    return {
        "tokenizer.ggml.tokens": Typed([f"token{i:06}" for i in range(n_tokens)], ValueType.STRING),
        "tokenizer.ggml.merges": Typed([f"a{i} b" for i in range(n_tokens)], ValueType.STRING),
    }


def header_bytes(gguf: GGUFFile) -> int:
    """Bytes of all headers."""
    return sum(shard.header.data_offset for shard in gguf.shards)


def test_same_as_local(site: Site, tmp_path: Path) -> None:
    """A remote model has the metadata, the tensors and the prediction of the same file on disk."""
    (tmp_path / "tiny.gguf").write_bytes(site.files[PATH])
    remote = RemoteReader().open(site.url + PATH)
    with open_gguf(tmp_path / "tiny.gguf") as local:
        assert remote.metadata == local.metadata
        assert remote.tensors == local.tensors
        assert remote.file_bytes == local.file_bytes == len(site.files[PATH])
        assert predict_memory(remote, Params(n_ctx=512)).terms == predict_memory(local, Params(n_ctx=512)).terms
    assert (remote.location, remote.path.name, remote.missing_bytes) == (site.url + PATH, "tiny.gguf", 0)
    assert [note for note in remote.notes if "missing" in note] == []
    assert "remote: only the header was read" in remote.notes[-1]
    with pytest.raises(GGUFError, match=r"only the header was read, tensor 'token_embd.weight' is not here"):
        remote.tensor_data(remote.tensors[0])


def test_header_only(site: Site) -> None:
    """No more than the header and 1 MiB is sent, in a handful of requests."""
    gguf = RemoteReader().open(site.url + LARGE)

    assert 7 * MIB < header_bytes(gguf) < 9 * MIB
    assert header_bytes(gguf) <= site.sent_bytes <= header_bytes(gguf) + MIB
    assert len(site.requests) <= 6
    array = gguf.get_array("tokenizer.ggml.merges")
    assert array is not None
    assert array[219_999] == "a219999 b"


def test_redirects_keep_the_token_home(site: Site) -> None:
    """Redirects are followed once; credentials do not go to another host, and do go on to the same one."""
    with serving(Site(files={"/blob": large_model()})) as storage:
        site.redirects["/moved.gguf"] = "/moved/again.gguf"
        site.redirects["/moved/again.gguf"] = f"{storage.url}/blob"
        gguf = RemoteReader().open(site.url.replace("//", "//me:secret@") + "/moved.gguf")

        assert gguf.location == f"{site.url}/moved.gguf"
        assert [path for path, _ in site.requests] == ["/moved.gguf", "/moved/again.gguf"]
        assert {headers["authorization"] for _, headers in site.requests} == {"Basic bWU6c2VjcmV0"}
        assert len(storage.requests) > 2
        assert not [h for _, h in storage.requests if "authorization" in h]
        assert all("range" in h for _, h in storage.requests)
        assert "secret" not in " ".join(gguf.notes) + gguf.location


def test_expired_redirect(site: Site) -> None:
    """An address behind a redirect that is refused later on is asked for again."""
    with serving(Site(files={"/blob": large_model()}, statuses=[200, 403])) as storage:
        site.redirects["/moved.gguf"] = f"{storage.url}/blob"
        gguf = RemoteReader().open(site.url + "/moved.gguf")

        assert len(gguf.tensors) == 20
        assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/passwd", "Redirection to url 'file:///etc/passwd' is not allowed"),
        ("ftp://host/m.gguf", "redirected to 'ftp://host/m.gguf', expected an http or https address"),
        (PATH, "the server answered 302 The HTTP server returned a redirect error that would lead to an infinite loop"),
    ],
)
def test_redirect_to_nowhere(site: Site, target: str, message: str) -> None:
    """A redirect can't lead to a local file, to another protocol, or in circles."""
    site.redirects[PATH] = target
    with pytest.raises(FetchError, match=message) as caught:
        RemoteReader().open(site.url + PATH)
    assert "\n" not in str(caught.value)


def test_broken_connections(site: Site) -> None:
    """Reading goes on where a connection broke: no byte is sent twice."""
    site.break_after = 2 * MIB
    gguf = RemoteReader().open(site.url + LARGE)

    assert len(gguf.tensors) == 20
    assert site.sent_bytes <= header_bytes(gguf) + MIB


def test_always_breaking(site: Site) -> None:
    """A server that never gets further is given up, with the last reason."""
    site.break_after = 1000
    with pytest.raises(FetchError, match="gave up after 7 attempts with 7,000 bytes read: the connection broke off"):
        RemoteReader().open(site.url + LARGE)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server(site: Site, status: int) -> None:
    """A busy server is asked again; one that stays busy is given up."""
    site.statuses = [status, 200, status]
    assert len(RemoteReader().open(site.url + PATH).tensors) == 20
    site.statuses = [status] * 20
    with pytest.raises(FetchError, match=rf"gave up after 7 attempts with 0 bytes read: the server answered {status}"):
        RemoteReader().open(site.url + PATH)


@pytest.mark.parametrize("lengths", [True, False])
def test_no_ranges(site: Site, lengths: bool) -> None:
    """From a server that sends the whole file reading stops early, and the report says so."""
    site.files["/huge.gguf"] = model(vocabulary(50_000), data=64 * MIB)
    site.ranges, site.lengths = False, lengths
    gguf = RemoteReader().open(site.url + "/huge.gguf")

    assert len(site.requests) == 1
    assert site.sent_bytes < 32 * MIB  # of 66: what was under way in buffers
    assert len(gguf.shards[0].buffer) <= header_bytes(gguf) + MIB
    assert "the server knows no range requests: it began to send the whole file" in gguf.notes
    assert gguf.file_bytes == (len(site.files["/huge.gguf"]) if lengths else gguf.shards[0].header.end_offset)


def test_no_ranges_and_broken(site: Site) -> None:
    """Without ranges a broken connection means starting again."""
    site.ranges = False
    sizes = iter([3 * MIB, 0])
    site.on_request = lambda path: setattr(site, "break_after", next(sizes))

    assert len(RemoteReader().open(site.url + LARGE).tensors) == 20
    assert len(site.requests) == 2


def test_secret_size(site: Site) -> None:
    """Where the server does not say how long the file is, the header's own account counts."""
    site.lengths = False
    gguf = RemoteReader().open(site.url + PATH)

    assert gguf.file_bytes == gguf.shards[0].header.end_offset


def test_unfinished_upload(site: Site) -> None:
    """A remote file that is shorter than its header declares is called so."""
    site.files[PATH] = model()[:-1000]
    gguf = RemoteReader().open(site.url + PATH)

    assert gguf.missing_bytes == 1000
    assert "declares 1,000 bytes more than" in " ".join(gguf.notes)
    assert "at that address (unfinished upload)" in " ".join(gguf.notes)


def test_slow_server(site: Site) -> None:
    """Slowness is no error, and bytes are reported as they arrive."""
    site.pause_s = 0.02
    arrived: list[int] = []
    gguf = RemoteReader(timeout_s=5, on_bytes=arrived.append).open(site.url + PATH)

    assert sum(arrived) == len(gguf.shards[0].buffer)
    assert len(arrived) > 3


def test_silent_server(site: Site) -> None:
    """A server that says nothing is left after the time limit."""
    site.pause_s = 5.0
    with pytest.raises(FetchError, match=r"no answer for 0\.2 s \(0 bytes were read\)"):
        RemoteReader(timeout_s=0.2).open(site.url + PATH)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_trickle(site: Site, ranges: bool) -> None:
    """A server that sends now and then a little is left as one that says nothing is, wherever it dawdles."""
    site.ranges, site.block_bytes, site.pause_s = ranges, 1000, 0.05
    with pytest.raises(
        FetchError, match=r"gguf: only [\d,]+ bytes came in 0\.\d+ s, expected 65,536 at least \([34],000 b"
    ):
        RemoteReader(timeout_s=0.2).open(site.url + LARGE)
    site.slow_headers_s = 0.05
    with pytest.raises(FetchError, match=r"gguf: only \d+ bytes came in .* s, .* \(0 bytes were read\)"):
        RemoteReader(timeout_s=0.2).open(site.url + LARGE)


def test_scanty_answers(site: Site) -> None:
    """A server may send less than was asked for, but not next to nothing each time."""
    site.most_of_a_range = 1 << 17
    assert len(RemoteReader().open(site.url + LARGE).tensors) == 20
    site.most_of_a_range = 5
    with pytest.raises(FetchError, match=r"gave up after 7 attempts with 35 bytes read: the server sent 5 of the "):
        RemoteReader().open(site.url + LARGE)


def test_changed_while_read(site: Site) -> None:
    """Bytes of two versions are never mixed."""

    def replace(path: str) -> None:
        if len(site.requests) == 2:
            site.files[path] = site.files[path][:-1] + b"x"

    site.on_request = replace
    with pytest.raises(FetchError, match="the file changed while it was read"):
        RemoteReader().open(site.url + LARGE)


def test_a_range_that_ends_before_it_begins(site: Site) -> None:
    """A part of the right start and no length is refused, not asked for again without end."""

    def backwards(path: str) -> None:
        if len(site.requests) == 2:
            start = site.headers_of(1)["range"].removeprefix("bytes=").partition("-")[0]
            site.headers[path] = {"Content-Range": f"bytes {start}-{int(start) - 1}/99999999"}
        assert len(site.requests) < 9

    site.on_request = backwards
    with pytest.raises(FetchError, match="asked for bytes from 1,"):
        RemoteReader().open(site.url + LARGE)


def test_compressed(site: Site) -> None:
    """A server that compresses, although it was asked not to, is told so: its bytes are no GGUF."""
    site.headers[PATH] = {"Content-Encoding": "gzip"}
    with pytest.raises(FetchError, match="the server sends it as 'gzip', expected the bytes as they are"):
        RemoteReader().open(site.url + PATH)


def test_redirect_to_what_is_no_address(site: Site) -> None:
    """An address that cannot be read is an error that names the one that led there."""
    site.redirects["/other.gguf"] = "http://[::1/tiny.gguf"
    with pytest.raises(FetchError, match=r"/other\.gguf: not an address that can be fetched"):
        RemoteReader().open(f"{site.url}/other.gguf")


def test_a_length_that_is_none(site: Site) -> None:
    """A length of digits that are none (a superscript) is no length: read until it ends."""
    site.ranges, site.lengths, site.headers[PATH] = False, False, {"Content-Length": "\u00b2"}

    assert len(RemoteReader(timeout_s=5).open(site.url + PATH).tensors) == 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty, expected a GGUF file"),
        (b"<!doctype html><html>", "not a GGUF file: it starts with b'<!do'"),
        (model()[:300], "truncated"),
        (model()[:24] + b"\xff" * 7 + b"\x00" + bytes(100), "needs 72,057,594,037,927,935 bytes"),
    ],
)
def test_not_a_gguf(site: Site, content: bytes, message: str) -> None:
    """What is no GGUF is called so from its first bytes, whatever they claim."""
    site.files[PATH] = content
    with pytest.raises(GGUFError, match=message) as caught:
        RemoteReader().open(site.url + PATH)
    assert site.url + PATH in str(caught.value)
    assert site.sent_bytes <= MIB


def test_claims_gigabytes(site: Site) -> None:
    """A header that claims gigabytes is refused, not fetched."""
    header = encode_header({"general.name": "x" * 64}, [])
    claim = header.index(b"x" * 64) - 8
    site.files[PATH] = header[:claim] + (1 << 33).to_bytes(8, "little") + bytes(4 * MIB)
    with pytest.raises(GGUFError, match=r"its header claims 8,589,\d+,\d+ bytes and more.* it is not fetched"):
        RemoteReader().open(site.url + PATH)
    assert site.sent_bytes <= MIB


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "answered 401 Unauthorized: to log in write https://user:password@host"),
        (403, "answered 403 Forbidden: to log in write https://user:password@host"),
        (404, "answered 404 Not Found: no such file"),
        (410, "answered 410 Gone"),
    ],
)
def test_refusals(site: Site, status: int, message: str) -> None:
    """Each refusal is named with its status and what may help."""
    site.statuses = [status]
    with pytest.raises(FetchError, match=message):
        RemoteReader().open(site.url + PATH)


def test_wrong_credentials(site: Site) -> None:
    """Credentials in the address are sent, never shown, and when refused the error says that."""
    site.login = "Basic nobody"
    address = site.url.replace("//", "//me:secret@") + PATH
    with pytest.raises(FetchError, match="the server does not accept these credentials") as caught:
        RemoteReader().open(address)
    assert "secret" not in str(caught.value)


def test_no_server() -> None:
    """No server, no such host, no TLS: each is an error in words."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(FetchError, match="cannot connect: Connection refused"):
        RemoteReader().open(f"http://127.0.0.1:{port}{PATH}")
    with pytest.raises(FetchError, match=r"nowhere\.invalid/m\.gguf: cannot connect"):
        RemoteReader().open("http://nowhere.invalid/m.gguf")
    with pytest.raises(FetchError, match="not an address that can be fetched"):
        RemoteReader().open("http://host:port/m.gguf")


def test_tls_failure(site: Site) -> None:
    """A server that speaks no TLS, or has a certificate nobody vouches for, is refused with the variable to set."""
    with pytest.raises(FetchError, match=r"TLS failed: .*SSL_CERT_FILE") as caught:
        RemoteReader().open(site.url.replace("http:", "https:") + PATH)
    assert not isinstance(caught.value.__cause__, ssl.SSLError)


@pytest.mark.parametrize("text", ["https:///m.gguf", "ftp://host/m.gguf", "hf:", "hf:one", "hf:a/b/c", "hf:a/b@:x"])
def test_malformed(text: str) -> None:
    """An address that cannot mean anything is a usage error."""
    with pytest.raises(ValueError, match="is not an address|does not name a file on the Hub"):
        RemoteReader().open(text)


def test_proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy is asked for the file, unless no_proxy names the host."""
    monkeypatch.setenv("http_proxy", site.url)
    site.files["http://models.invalid/tiny.gguf"] = site.files[PATH]
    gguf = RemoteReader().open("http://models.invalid/tiny.gguf")

    assert gguf.location == "http://models.invalid/tiny.gguf"
    assert site.requests[0][0] == "http://models.invalid/tiny.gguf"
    monkeypatch.setenv("no_proxy", "models.invalid")
    with pytest.raises(FetchError, match="cannot connect"):
        RemoteReader().open("http://models.invalid/tiny.gguf")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_split_model(number: int) -> None:
    """Any shard will do: the others' headers are fetched too, and the whole is what it would be on disk."""
    with serving(Site(files=split())) as site:
        gguf = RemoteReader().open(f"{site.url}/m-{number:05d}-of-00003.gguf?download=true")

        assert [t.name for t in gguf.tensors] == [t.name for t in llama_tensors()]
        assert [t.shard for t in gguf.tensors] == [0] * 7 + [1] * 7 + [2] * 6
        assert gguf.file_bytes == sum(len(data) for data in site.files.values())
        assert {path.partition("?")[2] for path, _ in site.requests} == {"download=true"}
        assert predict_memory(gguf, Params(n_ctx=256)).model_bytes > 0


def split() -> dict[str, bytes]:
    """A split model, by path."""
    return {f"/{name}": data for name, data in shards("m").items()}


def test_missing_shard() -> None:
    """A shard that is not there is named."""
    files = split()
    del files["/m-00002-of-00003.gguf"]
    with (
        serving(Site(files=files)) as site,
        pytest.raises(FetchError, match=r"m-00002-of-00003\.gguf: the server answered 404"),
    ):
        RemoteReader().open(f"{site.url}/m-00001-of-00003.gguf")


def test_cache(site: Site, tmp_path: Path) -> None:
    """The second time the server only confirms; a changed file is fetched anew."""
    reader = RemoteReader(cache=HeaderCache(tmp_path))
    first = reader.open(site.url + LARGE)
    sent = site.sent_bytes
    second = reader.open(site.url + LARGE)

    assert site.sent_bytes == sent
    assert site.headers_of(-1)["if-none-match"]
    assert (second.tensors, second.file_bytes) == (first.tensors, first.file_bytes)
    assert dict(second.metadata)["llama.block_count"] == 2

    site.files[LARGE] = model({"general.name": "new", **vocabulary(200_000)})
    third = reader.open(site.url + LARGE)
    assert (third.name, third.file_bytes) == ("new", len(site.files[LARGE]))


def test_cache_is_not_trusted(site: Site, tmp_path: Path) -> None:
    """A damaged entry is fetched again, a server without ETags is not cached, a folder that can't be is no error."""
    reader = RemoteReader(cache=HeaderCache(tmp_path / "cache"))
    reader.open(site.url + PATH)
    (entry,) = (tmp_path / "cache").iterdir()
    whole = entry.read_bytes()
    for damage in (whole[:-1], whole.replace(b"GGUF", b"FUGG"), b"", b"{}\n", b"\xff\n", b"[]\n"):
        entry.write_bytes(damage)
        assert len(reader.open(site.url + PATH).tensors) == 20
    assert entry.read_bytes() == whole

    site.etags = False
    RemoteReader(cache=HeaderCache(tmp_path / "other")).open(site.url + PATH)
    assert not (tmp_path / "other").exists()

    site.etags = True
    assert len(RemoteReader(cache=HeaderCache(entry / "in a file")).open(site.url + PATH).tensors) == 20


def test_cache_size(site: Site, tmp_path: Path) -> None:
    """The oldest entries make room."""
    size = 12_000
    cache = HeaderCache(tmp_path, max_bytes=3 * size)
    for number in range(6):
        path = f"/{number}.gguf"
        site.files[path] = model({"a.filler": "x" * 9_000})
        RemoteReader(cache=cache).open(site.url + path)

    held = [number for number in range(6) if cache.load(f"{site.url}/{number}.gguf")]
    assert held == [3, 4, 5]
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 3 * size
