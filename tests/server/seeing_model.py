"""Small models that see, of random weights: text model and encoder (mmproj), one pair of each way images are read."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from bench.clip.files import write_clip
from bench.clip.shape import ClipShape
from ggufphys import open_gguf
from ggufphys.gguf.ggml_types import GGMLType
from ggufphys.gguf.values import ValueType
from ggufphys.gguf.writer import Typed, WriteValue
from tests.server.chain_model import Array, _llama_tensors, _write

N_EMBD: Final = 64
HEAD: Final = 8

HEARING: Final = ClipShape(projector="ultravox", text=N_EMBD, weight_type=GGMLType.F32)
# fmt: off
ENCODERS: Final[Mapping[str, ClipShape]] = {
    "llama": ClipShape(projector="mlp", text=N_EMBD),                          # as many positions as tokens
    "qwen2vl": ClipShape(projector="qwen2vl_merger", text=N_EMBD),             # M-RoPE: positions in a plane
    "gemma3": ClipShape(projector="gemma3", text=N_EMBD, image_size=112),      # an image's tokens see one another
}
# fmt: on


def write_seeing_model(path: Path, arch: str, encoding: ClipShape | None = None) -> tuple[Path, Path]:
    """Write a text model of an architecture and its encoder, or another one; both paths."""
    generator = np.random.default_rng(5)

    def weights(shape: tuple[int, int]) -> Array:
        return generator.normal(0, 0.3, shape).astype(np.float32)

    tensors = _llama_tensors(N_EMBD, weights)
    more: dict[str, WriteValue] = {}
    if arch == "qwen2vl":
        tensors |= {f"blk.0.attn_{x}.bias": weights((1, n))[0] for x, n in (("q", N_EMBD), ("k", HEAD), ("v", HEAD))}
        more["qwen2vl.rope.dimension_sections"] = Typed([2, 1, 1, 0], ValueType.INT32)
    if arch == "gemma3":
        tensors |= {f"blk.0.attn_{x}_norm.weight": np.ones(HEAD, np.float32) for x in "qk"}
        tensors |= {f"blk.0.post_{x}_norm.weight": np.ones(N_EMBD, np.float32) for x in ("attention", "ffw")}
        more["gemma3.attention.sliding_window"] = 64
    _write(path / f"{arch}.gguf", f"seeing {arch}", N_EMBD, tensors, more, arch=arch)
    encoder = write_clip(path / f"{arch}-mmproj.gguf", encoding or ENCODERS[arch])
    _fill(encoder, generator)
    return path / f"{arch}.gguf", encoder


def _fill(path: Path, generator: np.random.Generator) -> None:
    """Put random weights where there are none."""
    with open_gguf(path) as gguf:
        start = gguf.shards[0].header.data_offset
        places = [(t.name, t.ggml_type, t.n_elements, start + t.offset) for t in gguf.tensors]
    with path.open("r+b") as file:
        for name, kind, n, offset in places:
            values = np.ones(n) if name.endswith(("norm.weight", "ln.weight", "ln1.weight", "ln2.weight")) else None
            values = generator.normal(0, 0.2, n) if values is None else values
            file.seek(offset)
            file.write(values.astype(np.float16 if kind is GGMLType.F16 else np.float32).tobytes())


def noise(seed: int) -> bytes:
    """Two seconds of noise, as a WAV file of 16,000 numbers a second."""
    data = np.random.default_rng(seed).integers(-9000, 9000, 32_000, dtype=np.int16).tobytes()
    form = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    size, rest = struct.pack("<I", len(data)), struct.pack("<I", 36 + len(data))
    return b"RIFF" + rest + b"WAVEfmt " + form + b"data" + size + data


def picture(seed: int, width: int = 60, height: int = 44) -> bytes:
    """A picture of random pixels, as a BMP file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width * 3), dtype=np.uint8)
    rows = np.pad(pixels, ((0, 0), (0, -width * 3 % 4)))
    head = b"BM" + (54 + rows.size).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    sizes = (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return head + sizes + b"\x01\x00\x18\x00" + bytes(24) + rows.tobytes()
