"""Benchmark of truth, not of speed: how far off are predicted compute buffers of mmproj encoders?

Encoders in the sizes of published models, weights a hole. Each is compared twice: with the graph that is written for
it, and with the generic graph that stands in for projectors without one: the second column is the band of such an
estimate.

usage: python -m bench.mmproj [--json]
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from bench.clip.files import write_clip
from bench.clip.measure import measure
from bench.clip.shape import ClipShape
from bench.running.program import run_program
from ggufphys import open_gguf
from ggufphys.clip.builder import ClipBuilder
from ggufphys.clip.hparams import read_clip
from ggufphys.clip.models import MODELS, generic
from ggufphys.clip.tensors import loaded_tensors
from ggufphys.graph.allocating.alloc import allocate
from ggufphys.report.inspection import dumps, table
from ggufphys.units import format_mib

_SO400M: Final = ClipShape(projector="", n_embd=1152, n_head=16, n_ff=4304, n_layer=27)
_VIT_L: Final = ClipShape(projector="", n_embd=1024, n_head=16, n_ff=4096, n_layer=24)
_QWEN: Final = ClipShape(projector="", n_embd=1280, n_head=16, n_layer=32)
_WHISPER: Final = ClipShape(projector="", n_embd=1280, n_head=20, n_ff=5120, n_layer=32)

# fmt: off
ENCODERS: Final = {
    "llava-1.5-7b":        replace(_VIT_L, projector="mlp", image_size=336, text=4096),
    "mobilevlm-1.7b":      replace(_VIT_L, projector="ldp", image_size=336, text=2048),
    "mobilevlm-v2-1.7b":   replace(_VIT_L, projector="ldpv2", image_size=336, text=2048),
    "glm-edge-v-5b":       replace(_SO400M, projector="adapter", image_size=672, text=3072),
    "minicpm-v-4":         replace(_SO400M, projector="resampler", image_size=448, text=2560),
    "minicpm-v-4.6":       replace(_SO400M, projector="minicpmv4_6", image_size=448, text=2560),
    "gemma-3-4b":          replace(_SO400M, projector="gemma3", image_size=896, text=2560),
    "smolvlm-500m":        ClipShape(projector="idefics3", n_embd=768, n_head=12, n_ff=3072, n_layer=12,
                                     image_size=512, patch_size=16, text=960),
    "lfm2-vl-1.6b":        replace(_SO400M, projector="lfm2", image_size=256, patch_size=16, text=2048),
    "janus-pro-7b":        replace(_VIT_L, projector="janus_pro", image_size=384, patch_size=16, text=4096),
    "internvl3-8b":        replace(_VIT_L, projector="internvl", image_size=448, text=3584),
    "nemotron-nano-vl":    replace(_QWEN, projector="nemotron_v2_vl", n_ff=5120, image_size=512, patch_size=16,
                                     text=4480),
    "llama-4-scout":       ClipShape(projector="llama4", n_embd=1408, n_head=16, n_ff=5632, n_layer=34, image_size=336,
                                     text=5120),
    "cogvlm2-19b":         ClipShape(projector="cogvlm", n_embd=1792, n_head=16, n_ff=15360, n_layer=63,
                                     image_size=490, text=4096),
    "pixtral-12b":         replace(_VIT_L, projector="pixtral", image_size=1024, patch_size=16, text=5120),
    "lightonocr-1b":       replace(_VIT_L, projector="lightonocr", image_size=1540, text=1024),
    "kimi-vl-a3b":         replace(_SO400M, projector="kimivl", image_size=896, text=2048),
    "paddleocr-vl":        replace(_SO400M, projector="paddleocr", image_size=384, text=1024),
    "dots.ocr":            ClipShape(projector="dots_ocr", n_embd=1536, n_head=12, n_ff=4224, n_layer=42,
                                     image_size=448, text=1536),
    "hunyuan-ocr":         replace(_SO400M, projector="hunyuanvl", image_size=2048, patch_size=16, text=1024),
    "qwen2-vl-7b":         replace(_QWEN, projector="qwen2vl_merger", n_ff=5120, image_size=560, text=3584),
    "qwen2.5-vl-7b":       replace(_QWEN, projector="qwen2.5vl_merger", n_ff=3420, image_size=560, text=3584),
    "qwen3-vl-8b":         replace(_SO400M, projector="qwen3vl_merger", image_size=768, patch_size=16, text=4096),
    "glm-4.6v-flash":      ClipShape(projector="glm4v", n_embd=1536, n_head=12, n_ff=4096, n_layer=24,
                                     image_size=336, text=4096),
    "youtu-vl-4b":         replace(_SO400M, projector="youtuvl", image_size=512, patch_size=16, text=2048),
    "ultravox-v0.5-8b":    replace(_WHISPER, projector="ultravox", text=4096),
    "voxtral-mini-3b":     replace(_WHISPER, projector="voxtral", text=3072),
    "qwen2-audio-7b":      replace(_WHISPER, projector="qwen2a", text=4096),
    "qwen3-asr-1.7b":      ClipShape(projector="qwen3a", n_embd=1024, n_head=16, n_ff=4096, n_layer=24, text=2048),
}
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRow:
    """One encoder: bytes that llama.cpp reserves, that its own graph gives (None without one), and the generic one."""

    encoder: str
    projector: str
    compute_bytes: int
    predicted_bytes: int | None
    generic_bytes: int

    @property
    def generic_error(self) -> float:
        """The relative error of the generic graph."""
        return self.generic_bytes / self.compute_bytes - 1


def compare(shapes: dict[str, ClipShape], folder: Path) -> list[EncoderRow]:
    """A row for each encoder."""
    paths = {name: write_clip(folder / f"{name}.gguf", shape) for name, shape in shapes.items()}
    rows = []
    for (name, shape), truth in zip(shapes.items(), measure(list(paths.values())), strict=True):
        with open_gguf(paths[name]) as gguf:
            (h,) = read_clip(gguf)
            tensors = {t.name: t for t in loaded_tensors(gguf, shape.projector, h.modality, h.n_layer)}
        sizes = [
            None if build is None else allocate(build(ClipBuilder(h, tensors, h.warmup))).buffer_bytes
            for build in (MODELS.get(shape.projector), generic.build)
        ]
        rows.append(
            EncoderRow(
                encoder=name,
                projector=shape.projector,
                compute_bytes=truth["compute"],
                predicted_bytes=sizes[0],
                generic_bytes=sizes[1] or 0,
            )
        )
    return rows


def report(rows: Sequence[EncoderRow]) -> str:
    """A line an encoder, and the band of the generic graph."""
    written = [row for row in rows if row.predicted_bytes is not None]
    exact = [row for row in written if row.predicted_bytes == row.compute_bytes]
    cells = [
        (
            row.encoder,
            row.projector,
            format_mib(row.compute_bytes),
            "-" if row.predicted_bytes is None else "yes" if row in exact else "NO",
            f"{100 * row.generic_error:+.1f}",
        )
        for row in rows
    ]
    lines = table(("encoder", "projector", "MiB", "exact", "generic %"), cells, right=(2, 4))
    errors = [abs(row.generic_error) for row in rows]
    lines += [
        "",
        f"graphs of their own: {len(exact)} of {len(written)} exact; the generic one: median error "
        f"{100 * statistics.median(errors):.1f} %, {sum(e <= 0.25 for e in errors)} of {len(errors)} within 25 %, "
        f"from {100 * min(row.generic_error for row in rows):+.0f} % to "
        f"{100 * max(row.generic_error for row in rows):+.0f} %",
    ]
    return "\n".join(lines)


def main() -> int:
    """Compare and print; 1 when a graph of its own is not exact."""
    parser = argparse.ArgumentParser(prog="python -m bench.mmproj", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(ENCODERS, Path(folder))
    print(dumps([asdict(row) for row in rows]) if args.json else report(rows))
    return 0 if all(row.predicted_bytes in (None, row.compute_bytes) for row in rows) else 1


if __name__ == "__main__":
    run_program(main)
