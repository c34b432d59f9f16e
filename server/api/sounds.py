"""How long is a sound, by what its file says at its beginning? A decoder takes as much memory as that, at once.

Files are read strictly: what says of itself something that can't be, or says it twice, is no sound here.

Source: llama.cpp 0c1e570 tools/mtmd/mtmd-helper.cpp, decode_audio_from_buf; vendor/miniaudio/miniaudio.h,
ma_dr_wav_init__internal, ma_dr_flac__read_and_decode_metadata, ma_dr_mp3_init_internal.
"""

from typing import Final

PLAIN: Final = (1, 3, 0xFFFE)  # WAV's numbers of PCM, of floats, and of either with more said of it
FRAME: Final = 1152  # values in a frame of MP3, at most
RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version
# Kilobits a second of layer 3, of version 1 and of the others.
KBITS: Final = (
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
TAGS: Final = ((b"Xing", 4, 8), (b"Info", 4, 8), (b"VBRI", 0, 14))  # where flags and the number of frames are
TAGGED: Final = 64  # bytes of a frame that a tag may begin in


def seconds_of(file: bytes) -> float | None:
    """Seconds of a WAV, FLAC or MP3 file; None: it is none, or not as it should be."""
    if file.startswith(b"RIFF") and file[8:12] == b"WAVE":
        return _wav(file)
    if file.startswith(b"fLaC"):
        return _flac(file)
    at = 0
    while file[at : at + 3] == b"ID3" and len(file) > at + 10:  # a title and the like, in front
        a, b, c, d = file[at + 6 : at + 10]
        at += 10 + (a << 21 | b << 14 | c << 7 | d)
    return _mp3(file[at : at + 4 + TAGGED + 18], len(file) - at)


def _wav(file: bytes) -> float | None:
    found: dict[bytes, tuple[int, int]] = {}
    at = 12
    while at + 8 <= len(file):
        name, size = file[at : at + 4], int.from_bytes(file[at + 4 : at + 8], "little")
        if at + 8 + size > len(file) or (name in found and name in (b"fmt ", b"data", b"fact")):
            return None
        found[name] = at + 8, size
        at += 8 + size + size % 2
    if b"data" not in found or found.get(b"fmt ", (0, 0))[1] < 16:
        return None
    form, (_, n_bytes) = file[found[b"fmt "][0] :], found[b"data"]
    kind, rate, n_each = (int.from_bytes(form[a:b], "little") for a, b in ((0, 2), (4, 8), (12, 14)))
    if kind not in PLAIN or not rate or not n_each:
        return None
    told = file[found[b"fact"][0] :][:4] if b"fact" in found else b""
    return max(n_bytes // n_each, int.from_bytes(told, "little")) / rate


def _flac(file: bytes) -> float | None:
    if len(file) < 42 or file[4] & 0x7F or int.from_bytes(file[5:8], "big") != 34:
        return None
    said = int.from_bytes(file[18:26], "big")  # 20 bits of the rate, 3 of channels, 5 of bits, 36 of samples
    rate, n_samples = said >> 44, said & (1 << 36) - 1
    return n_samples / rate if rate and n_samples else None


def _mp3(frame: bytes, n_bytes: int) -> float | None:
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # in step, and layer 3
        return None
    version, kbit, rate = frame[1] >> 3 & 3, frame[2] >> 4, frame[2] >> 2 & 3
    if version == 1 or rate == 3 or not 0 < kbit < 15:
        return None
    for tag, flags, number in TAGS:
        at = frame.find(tag)
        if at >= 0 and (not flags or frame[at + flags + 3] & 1):
            return int.from_bytes(frame[at + number : at + number + 4], "big") * FRAME / RATES[version][rate]
    return n_bytes * 8 / (KBITS[version != 3][kbit - 1] * 1000)
