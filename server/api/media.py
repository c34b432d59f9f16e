"""Images and sounds in a request: parts of messages to files, and to marks in the text where they stand.

Source: llama.cpp 0c1e570 tools/server/server-common.cpp, handle_media, oaicompat_content_load_media (what is taken,
and its words where something is not).
"""

import binascii
import os
import re
import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from server.api.errors import bad_request
from server.api.media_files import N_PIXELS_MAX, N_PIXELS_TOGETHER, SECONDS_MAX, SIDE_MAX, Kind, kind_of, size_of
from server.api.schema import Fields
from server.api.sounds import seconds_of
from server.engine.media import Read, joined
from server.engine.protocol import Engine

MARKER: Final = os.environ.get("LLAMA_MEDIA_MARKER") or f"<__media_{secrets.token_hex(16)}__>"
"""Where an image stands in a prompt that comes as text, for clients: another one in each process."""

UNSUPPORTED: Final = "unsupported_parameter"
N_FILES_MAX: Final = 64  # of a request
TYPES: Final[Mapping[str, Kind]] = {"image_url": "image", "input_image": "image", "input_audio": "sound"}
WORDS: Final[Mapping[Kind, str]] = {"image": "image", "sound": "audio"}  # llama-server's


class Media:
    """The images and sounds of one request. Marks are others in each, so that nobody can write one."""

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._mark = secrets.token_hex(16)
        self._files: list[bytes] = []
        self._n_pixels = 0

    def __bool__(self) -> bool:
        return bool(self._files)

    def part(self, part: Fields) -> str:
        """The mark that stands for a part of a message. Raises ApiError for one that cannot be read."""
        kind = part.string("type")
        if kind == "input_audio":
            sound = part.object("input_audio")
            name, value = "input_audio", sound.string("data") or sound.string("url")
        else:
            given = part.get("image_url")
            name, value = "image_url", given if isinstance(given, str) else part.object("image_url").string("url")
        param = part.param(name)
        if not self._takes(TYPES[kind]):
            _refuse(
                f"{WORDS[TYPES[kind]]} input is not supported - hint: if this is unexpected, you may need to provide "
                "the mmproj (--mmproj FILE)",
                param, code=UNSUPPORTED,
            )  # fmt: skip
        return self.add(file_of(value, param), param)

    def add(self, file: bytes, param: str) -> str:
        """The mark that stands for a file. Raises ApiError for one that cannot be read here."""
        kind = kind_of(file)
        if kind is None:
            _refuse(
                f"{param} is no image or sound that is read here, expected PNG, JPEG, GIF or BMP, or WAV, MP3 or FLAC",
                param,
            )
        if not self._takes(kind):
            _refuse(f"{param} is {WORDS[kind]}, and the model reads none (its mmproj file has no encoder of it)", param)
        self._check_size(file, param)
        if len(self._files) == N_FILES_MAX:
            _refuse(f"the request has more than {N_FILES_MAX} images and sounds", param)
        self._files.append(file)
        return f"<__media_{self._mark}_{len(self._files) - 1}__>"

    def _check_size(self, file: bytes, param: str) -> None:
        """Raises ApiError: it is too large when it is unpacked."""
        seconds = 0.0 if (size := size_of(file)) else seconds_of(file) or 0.0
        if seconds > SECONDS_MAX:
            _refuse(f"{param} is {seconds:,.0f} s long, expected at most {SECONDS_MAX:,}: cut it", param)
        width, height = size or (1, 1)
        if not width or not height or width * height > N_PIXELS_MAX or max(width, height) > SIDE_MAX:
            _refuse(f"{param} has {width:,} x {height:,} pixels, expected 1 to {N_PIXELS_MAX:,}: scale it down", param)
        self._n_pixels += width * height
        if self._n_pixels > N_PIXELS_TOGETHER:
            _refuse(f"the images have more than {N_PIXELS_TOGETHER:,} pixels together: scale them down", param)

    def _takes(self, kind: Kind) -> bool:
        info = self._engine().info
        return info.sees if kind == "image" else info.hears

    def marked(self, text: str, data: Sequence[Any], param: str) -> str:
        """A text with marks in place of the markers that clients know, each for a file in base64. Raises ApiError."""
        pieces = text.split(MARKER)
        if len(pieces) != len(data) + 1:
            _refuse(
                f"{param} has {len(data)} files for {len(pieces) - 1} markers: one stands in the text for each, as "
                "/props has it (media_marker)",
                param,
            )
        files = (file_of(value if isinstance(value, str) else "", f"{param}[{i}]") for i, value in enumerate(data))
        marks = [self.add(file, f"{param}[{i}]") for i, file in enumerate(files)]
        return pieces[0] + "".join(mark + piece for mark, piece in zip(marks, pieces[1:], strict=True))

    def shown(self, text: str) -> str:
        """A text with marks that clients know."""
        return re.sub(self._pattern, MARKER, text) if self._files else text

    @property
    def _pattern(self) -> str:
        return f"<__media_{self._mark}_(\\d+)__>"

    def read(self, text: str, tokenize: Callable[..., tuple[int, ...]]) -> Read:
        """The tokens of a text with its images and sounds; `tokenize` is for what stands between them.

        Each piece of text is tokenized by itself, BOS in front of the first one, as llama.cpp has it.

        Source: llama.cpp 0c1e570 tools/mtmd/mtmd.cpp, mtmd_tokenizer.

        Raises:
            ApiError: a file cannot be read, or the template has left one out.
        """
        pieces = re.split(self._pattern, text)
        marked = [int(number) for number in pieces[1::2]]
        if left := set(range(len(self._files))).difference(marked):
            _refuse(f"the model's chat template leaves out image or sound {min(left)} of the conversation", "messages")
        found = [Read(tokens=tokenize(pieces[0], add_special=True))]
        for number, behind in zip(marked, pieces[2::2], strict=True):
            try:
                found.append(self._engine().read(self._files[number]))
            except ValueError as error:
                _refuse(f"image or sound {number} of the request: {error}", "messages")
            found.append(Read(tokens=tokenize(behind, add_special=False) if behind else ()))
        return joined(found)


def file_of(value: str, param: str) -> bytes:
    """The bytes that a URL names: a data URI's, or those of a bare base64 text.

    Nothing is fetched, neither from other servers nor from this one's disk: who may ask would reach through this server
    what only it can.

    Raises:
        ApiError: another URL, or no base64.
    """
    if value.startswith("http"):
        _refuse(
            f"{param} is a URL, which this server does not fetch: send the file itself, as data:...;base64,",
            param,
            code=UNSUPPORTED,
        )
    if value.startswith("file://"):
        _refuse(
            "file:// URLs are not allowed: this server reads no files for clients (llama-server's --media-path is not "
            "had); send the file itself, as data:...;base64,",
            param, code=UNSUPPORTED,
        )  # fmt: skip
    head, comma, data = value.partition(",")
    if head.startswith("data:"):
        if not comma or "," in data:
            _refuse("Invalid uri-encoded base64 value", param)
        if not head.startswith(("data:image/", "data:audio/")):
            _refuse(f"Invalid uri format: {head:.80}", param)
        if not head.endswith("base64"):
            _refuse("uri must be base64 encoded", param)
    else:
        data = value
    try:
        file = b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        file = b""
    if not file:
        _refuse("Invalid base64 value", param)
    return file


def joined_with_marks(parts: list[tuple[Any, bool]]) -> str:
    """Texts and marks (True) as one content: texts on lines of their own, none beside a mark.

    Source: llama.cpp 0c1e570 common/chat.cpp, common_chat_msg::to_json_oaicompat.
    """
    text, was_mark = "", False
    for part, is_mark in parts:
        text += ("" if is_mark or was_mark or not text else "\n") + part
        was_mark = is_mark
    return text


def _refuse(message: str, param: str, code: str | None = None) -> NoReturn:
    raise bad_request(message, param=param, code=code)
