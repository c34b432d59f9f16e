"""What is in a file that a client sends: an image, of which size, or a sound?

A decoder is given nothing that is something else, and no image that grows too large when it is unpacked: a few bytes of
PNG may be gigabytes of pixels.

Source: llama.cpp 0c1e570 tools/mtmd/mtmd-helper.cpp, mtmd_helper_bitmap_init_from_buf (the kinds that it reads without
other programs).
"""

from itertools import pairwise
from typing import Final, Literal

from server.api.sounds import seconds_of

Kind = Literal["image", "sound"]
N_PIXELS_MAX: Final = 1 << 26  # 192 MiB as bytes of red, green and blue
SIDE_MAX: Final = 1 << 24  # what the decoder takes
N_PIXELS_TOGETHER: Final = 1 << 28  # of all images of a request
SECONDS_MAX: Final = 3600  # of a sound
PNG: Final = b"\x89PNG\r\n\x1a\n"
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's segments that tell of the size
ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # and those that are nothing but their mark


def kind_of(file: bytes) -> Kind | None:
    """What it is; None: neither of both, or not of a kind that is read."""
    if size_of(file) is not None:
        return "image"
    return None if seconds_of(file) is None else "sound"


def size_of(file: bytes) -> tuple[int, int] | None:
    """Width and height of an image in pixels; None: it is no PNG, JPEG, GIF or BMP, or broken at its beginning."""
    if file.startswith(PNG) and file[12:16] == b"IHDR" and len(file) > 24:
        return int.from_bytes(file[16:20], "big"), int.from_bytes(file[20:24], "big")
    if file[:6] in (b"GIF87a", b"GIF89a") and len(file) > 10:
        return int.from_bytes(file[6:8], "little"), int.from_bytes(file[8:10], "little")
    if file.startswith(b"BM") and len(file) > 26:
        if file[14] == 12:  # the oldest kind
            return int.from_bytes(file[18:20], "little"), int.from_bytes(file[20:22], "little")
        return tuple(abs(int.from_bytes(file[a:b], "little", signed=True)) for a, b in pairwise((18, 22, 26)))  # type: ignore[return-value]
    return _jpeg_size(file) if file.startswith(b"\xff\xd8\xff") else None


def _jpeg_size(file: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(file) and file[at] == 0xFF:
        mark = file[at + 1]
        if mark == 0xFF:  # filled up
            at += 1
        elif mark in ALONE:
            at += 2
        elif mark in FRAMES:
            return int.from_bytes(file[at + 7 : at + 9], "big"), int.from_bytes(file[at + 5 : at + 7], "big")
        else:
            at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    return None
