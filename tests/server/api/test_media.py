"""Images in requests: what is taken, where they stand in the prompt, and what is refused before anything decodes it."""

import base64
import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.api.media_files import N_PIXELS_MAX, kind_of, size_of
from server.api.sounds import seconds_of
from server.app import create_app
from server.config import ServerConfig
from server.engine.media import Span, joined, whole
from tests.server.fake_engine import INFO, FakeEngine
from tests.server.seeing_model import noise, picture

BMP = picture(1)
Json = dict[str, Any]


def png(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc2\x00\x11\x08\x00\x07\x00\x09" + bytes(20)


def url(file: bytes, kind: str = "image/bmp") -> str:
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def image(address: str) -> Json:
    return {"type": "image_url", "image_url": {"url": address}}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


@pytest.fixture
def seeing() -> FakeEngine:
    engine = FakeEngine()
    engine._info = replace(INFO, sees=True, n_ctx_seq=1000)
    return engine


@pytest.fixture
def client(seeing: FakeEngine) -> FlaskClient:
    return create_app(ServerConfig(ping_s=0.0, poll_s=0.01), seeing).test_client()


def said(prompt: tuple[int, ...]) -> str:
    """A prompt as text, `#` for what stands for an image."""
    return "".join("#" if token < 0 else chr(token) for token in prompt)


def ask(client: FlaskClient, *parts: Json, role: str = "user") -> Any:
    body = {"messages": [{"role": role, "content": list(parts)}], "max_tokens": 1}
    return client.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize(
    ("file", "size"),
    [
        (BMP, (60, 44)),
        (png(7, 9), (7, 9)),
        (JPEG, (9, 7)),
        (b"GIF89a" + struct.pack("<HH", 5, 6) + bytes(8), (5, 6)),
        (b"BM" + bytes(12) + struct.pack("<IHH", 12, 3, 4) + bytes(8), (3, 4)),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, 3, -4) + bytes(8), (3, 4)),  # from top to bottom
        (JPEG[:12], None),
        (b"\xff\xd8\xff\xe0\xff\xff", None),
        (b"", None),
        (b"II*\x00" + bytes(40), None),
    ],
)
def test_sizes(file: bytes, size: tuple[int, int] | None) -> None:
    assert size_of(file) == size


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data


def wav(n_bytes: int, *more: bytes, kind: int = 1, rate: int = 16_000) -> bytes:
    form = chunk(b"fmt ", struct.pack("<HHIIHH", kind, 1, rate, 2 * rate, 2, 16))
    return b"RIFF" + bytes(4) + b"WAVE" + form + b"".join(more) + chunk(b"data", bytes(n_bytes))


def flac(n_samples: int, rate: int = 16_000) -> bytes:
    return b"fLaC" + bytes([0x80, 0, 0, 34]) + bytes(10) + ((rate << 44) | n_samples).to_bytes(8, "big") + bytes(16)


def mp3(head: int, tag: bytes = b"", n_bytes: int = 8000) -> bytes:
    return (head.to_bytes(4, "big") + bytes(32) + tag).ljust(n_bytes, b"\0")


@pytest.mark.parametrize(
    ("file", "seconds"),
    [
        (noise(1), 2),
        (wav(32_000), 1),
        (wav(32_000, chunk(b"LIST", b"abc") + b"\0"), 1),
        (wav(32_000, chunk(b"fact", struct.pack("<I", 48_000))), 3),  # what it says is what is taken
        (wav(32_000, rate=8_000), 2),
        (wav(32_000, kind=2), None),
        (wav(32_000, chunk(b"data", b"")), None),  # twice
        (wav(32_000)[:-1], None),
        (flac(32_000), 2),
        (flac(0), None),
        (mp3(0xFFFB9000), 0.5),  # 128 kbit/s
        (mp3(0xFFF31000), 8.0),  # 8 kbit/s
        (b"ID3" + bytes(6) + b"\x05" + b"title" + mp3(0xFFFB9000), 0.5),
        (mp3(0xFFFB9000, b"Xing\0\0\0\x01" + (1225).to_bytes(4, "big")), 32.0),
        (b"ID3" + bytes(6) + b"\x05" + b"title" + flac(32_000), None),
        (mp3(0xFFFBF000), None),
        (mp3(0xFFFD9000), None),  # layer 2
        (b"RIFF" + bytes(4) + b"WEBP" + bytes(40), None),
        (b"ID3", None),
        (b"", None),
    ],
)
def test_lengths_of_sounds(file: bytes, seconds: float | None) -> None:
    assert seconds_of(file) == seconds
    assert kind_of(file) == (None if seconds is None else "sound")


def test_where_an_image_stands(client: FlaskClient, seeing: FakeEngine) -> None:
    """Texts are on lines of their own, but none beside an image: as llama-server joins them."""
    assert (
        ask(client, text("a"), text("b"), image(url(BMP)), text("c"), image(url(BMP)), image(url(BMP))).status_code
        == 200
    )
    request = seeing.requests[-1]
    assert said(request.prompt) == "[user]a\nb[####]c[####][####]"
    assert [request.prompt[span.start : span.end] for span in request.spans] == [request.prompt[10:14]] * 3
    ask(client, image(base64.b64encode(BMP).decode()), text("c"))
    assert said(seeing.requests[-1].prompt) == "[user][####]c"
    other = picture(2)
    ask(client, image(url(other)), text("c"))
    assert seeing.requests[-1].prompt[7:11] != request.prompt[10:14]
    assert seeing.requests[-1].spans[0].file == other


def test_the_same_by_other_endpoints(client: FlaskClient, seeing: FakeEngine) -> None:
    source = {"type": "base64", "media_type": "image/bmp", "data": base64.b64encode(BMP).decode()}
    blocks = [{"type": "image", "source": source}, text("c")]
    client.post("/v1/messages", json={"max_tokens": 1, "messages": [{"role": "user", "content": blocks}]})
    assert said(seeing.requests[-1].prompt) == "[user][####]c"
    shown = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": blocks}]}]
    client.post("/v1/messages", json={"max_tokens": 1, "messages": shown})
    assert said(seeing.requests[-1].prompt).endswith("[####]c")
    parts = [{"type": "input_image", "image_url": url(BMP)}, {"type": "input_text", "text": "c"}]
    client.post("/v1/responses", json={"input": [{"role": "user", "content": parts}]})
    assert said(seeing.requests[-1].prompt) == "[user][####]c"
    marker = client.get("/props").get_json()["media_marker"]
    prompt = {"prompt_string": f"a{marker}c", "multimodal_data": [source["data"]]}
    for path in ("/completion", "/v1/completions"):
        client.post(path, json={"prompt": prompt, "n_predict": 1})
        assert said(seeing.requests[-1].prompt) == "a[####]c"
    assert client.post("/v1/completions", json={"prompt": prompt, "echo": True}).status_code == 400
    written = client.post("/apply-template", json={"messages": [{"role": "user", "content": [image(url(BMP))]}]})
    assert written.get_json() == {"prompt": f"[user]{marker}"}
    counted = client.post("/tokenize", json={"messages": [{"role": "user", "content": [image(url(BMP))]}]})
    assert counted.get_json()["tokens"].count(-1) == 4


def test_what_is_told(client: FlaskClient) -> None:
    assert client.get("/props").get_json()["modalities"] == {"vision": True, "video": False, "audio": False}
    assert client.get("/v1/models").get_json()["models"][0]["capabilities"] == ["completion", "multimodal"]


def test_marks_are_nobodys_to_write(client: FlaskClient, seeing: FakeEngine) -> None:
    marker = client.get("/props").get_json()["media_marker"]
    assert ask(client, text(f"a{marker}"), image(url(BMP))).status_code == 200
    assert said(seeing.requests[-1].prompt) == f"[user]a{marker}[####]"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1/a.png", "does not fetch"),
        ("https://example.org/a.png", "does not fetch"),
        ("file:///etc/hostname", "--media-path"),
        ("data:text/plain;base64,AAAA", "Invalid uri format"),
        ("data:image/png,AAAA", "must be base64"),
        ("data:image/png;base64,AA,AA", "Invalid uri-encoded base64 value"),
        ("!", "Invalid base64 value"),
        ("", "Invalid base64 value"),
        (url(b"II*\x00" + bytes(40)), "no image or sound that is read here"),
        (url(noise(1)), "is audio, and the model reads none"),
        (url(png(1, N_PIXELS_MAX + 1)), "scale it down"),
        (url(png(0, 4)), "0 x 4 pixels"),
    ],
)
def test_what_is_refused(client: FlaskClient, seeing: FakeEngine, address: str, why: str) -> None:
    reply = ask(client, text("a"), image(address))
    error = reply.get_json()["error"]
    assert (reply.status_code, error["param"]) == (400, "messages[0].content[1].image_url")
    assert why in error["message"]
    assert not seeing.requests


def test_who_may_not_show_images(client: FlaskClient) -> None:
    assert "said to the assistant" in ask(client, image(url(BMP)), role="assistant").get_json()["error"]["message"]
    assert ask(client, *[image(url(BMP))] * 65).status_code == 400
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    assert "audio input is not supported" in ask(client, sound).get_json()["error"]["message"]
    marker = client.get("/props").get_json()["media_marker"]
    prompt = {"prompt_string": f"{marker}{marker}", "multimodal_data": ["AAAA"]}
    assert "1 files for 2 markers" in client.post("/completion", json={"prompt": prompt}).get_json()["error"]["message"]


def test_what_is_too_much_together(seeing: FakeEngine, client: FlaskClient) -> None:
    large = image(url(png(8192, 8191)))
    assert "together" in ask(client, *[large] * 5).get_json()["error"]["message"]
    seeing._info = replace(seeing._info, hears=True)
    for n, status in ((3600, 200), (3601, 400)):
        data = base64.b64encode(flac(n * 16_000)).decode()
        sound = {"type": "input_audio", "input_audio": {"data": data, "format": "flac"}}
        assert ask(client, sound, text("a")).status_code == status


def test_without_an_encoder(fake: FakeEngine) -> None:
    client = create_app(ServerConfig(ping_s=0.0, poll_s=0.01), fake).test_client()
    error = ask(client, image(url(BMP))).get_json()["error"]
    assert error["code"] == "unsupported_parameter"
    assert "--mmproj" in error["message"]
    marker = client.get("/props").get_json()["media_marker"]
    prompt = {"prompt_string": marker, "multimodal_data": [base64.b64encode(BMP).decode()]}
    assert "reads none" in client.post("/completion", json={"prompt": prompt}).get_json()["error"]["message"]
    assert not fake.requests


def test_a_template_that_leaves_an_image_out(seeing: FakeEngine) -> None:
    seeing._info = replace(seeing._info, chat_template="nothing")
    client = create_app(ServerConfig(ping_s=0.0, poll_s=0.01), seeing).test_client()
    assert "leaves out image or sound 0" in ask(client, image(url(BMP))).get_json()["error"]["message"]


def test_a_span_is_never_divided() -> None:
    spans = (Span(start=2, n_tokens=3, n_pos=1, file=b""),)
    assert [whole(spans, n) for n in range(7)] == [0, 1, 2, 2, 2, 5, 6]
    assert joined([]).tokens == ()
