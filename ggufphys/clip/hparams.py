"""What does an mmproj file say about its encoders? Keys with llama.cpp's defaults resolved, and the sizes of images.

Source: llama.cpp 0c1e570 tools/mtmd/clip.cpp, clip_model_loader::load_hparams; tools/mtmd/clip-model.h, clip_hparams.
"""

from collections.abc import Iterator
from math import isqrt
from typing import Final

from ggufphys.clip.projectors import BY_MODALITY, PROJECTORS, Modality, Projector
from ggufphys.errors import GGUFError, UnsupportedError
from ggufphys.frozen import dataclass
from ggufphys.gguf import GGUFFile
from ggufphys.gguf.values import ValueType

WARMUP_FRAMES: Final = 3000  # of sound: clip_hparams::warmup_audio_size
_COLOURS: Final = 3
_INT_MAX: Final = (1 << 31) - 1
_RAW_FRAME: Final = 640  # gemma4ua takes the waveform itself
_HAS: Final[dict[Modality, str]] = {
    "vision": "clip.has_vision_encoder",
    "audio": "clip.has_audio_encoder",
    "gen.audio": "clip.has_gen_audio_encoder",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipHParams:
    """One encoder. An image is `nx` by `ny` pixels; of sound `nx` is frames and `ny` bands."""

    projector: Projector
    modality: Modality
    n_embd: int
    n_head: int
    n_head_kv: int
    n_embd_head: int
    n_layer: int
    image_size: int
    patch_size: int
    n_merge: int
    warmup: tuple[int, int]
    largest: tuple[int, int]  # the largest image that one pass of the encoder sees
    n_wa_pattern: int  # every so-maniest layer sees the whole image, the others a window; 0: all do
    proj_stack_factor: int
    feature_layers: tuple[int, ...]
    minicpmv_query_num: int
    wa_layers: tuple[int, ...]  # layers that see the whole image while others see windows; minicpmv4_6: where it merges


def read_clip(gguf: GGUFFile, *, image_max_tokens: int = 0) -> tuple[ClipHParams, ...]:
    """The encoders that llama.cpp loads from the file; `image_max_tokens` as its flag of that name (0: the file's).

    Raises:
        ValueError: the file is no mmproj file.
        UnsupportedError: a projector that the pinned llama.cpp does not know.
        GGUFError: a key is missing or out of range.
    """
    if gguf.kind != "mmproj":
        raise ValueError(f"{gguf.location}: a GGUF of kind {gguf.kind!r}, expected an mmproj file")
    encoders = tuple(_encoders(gguf, image_max_tokens))
    if not encoders:
        raise GGUFError(f"{gguf.location}: none of {', '.join(_HAS.values())} is set: llama.cpp finds no encoder")
    return encoders


def _encoders(gguf: GGUFFile, image_max_tokens: int) -> Iterator[ClipHParams]:
    vision = ""
    for modality, key in _HAS.items():
        if not gguf.get_bool(key, False):
            continue
        name = gguf.get_str("clip.projector_type", "") or gguf.get_str(f"clip.{modality}.projector_type", "")
        name = BY_MODALITY.get(name, {}).get(modality, name)
        if name not in PROJECTORS:
            raise UnsupportedError(f"{gguf.location}: projector type {name!r} is not known to the pinned llama.cpp")
        if modality == "audio" and vision == "gemma3nv":
            continue  # its sound tensors are there, but not used
        vision = name if modality == "vision" else vision
        yield _Reader(gguf, PROJECTORS[name], modality, image_max_tokens).read()


class _Reader:
    """The keys of one encoder."""

    def __init__(self, gguf: GGUFFile, projector: Projector, modality: Modality, image_max_tokens: int) -> None:
        self.gguf = gguf
        self.projector = projector
        self.modality: Modality = modality
        self.image_max_tokens = image_max_tokens

    def read(self) -> ClipHParams:
        row = self.projector
        self.check_unused()
        n_head = self.integer("attention.head_count")
        n_embd = self.integer("embedding_length")
        image_size, patch_size = (self.integer("image_size"), self.integer("patch_size")) if self.is_vision else (0, 1)
        n_merge = self.integer(row.merge_key, row.n_merge) if row.merge_key else row.n_merge
        if row.name in ("deepseekocr", "deepseekocr2"):  # whatever the file says
            image_size, patch_size = 1024, 16
        if row.name == "gemma4uv":  # merges in its first convolution
            patch_size, n_merge = patch_size * n_merge, 1
        if not 0 < patch_size < 1 << 16 or not 0 < n_merge < 1 << 16 or not 0 <= image_size <= 8192 or n_embd <= 0:
            raise GGUFError(
                f"{self.gguf.location}: patch_size {patch_size}, n_merge {n_merge}, image_size {image_size} or n_embd "
                f"{n_embd} is out of the range that llama.cpp accepts"
            )
        warmup, largest = self.sizes(image_size, patch_size * n_merge)
        if min(warmup) < patch_size:
            raise GGUFError(f"{self.gguf.location}: an image of {warmup[0]} x {warmup[1]} has no patch of {patch_size}")
        query_num = self.whole("clip.minicpmv_query_num", 0)
        version = self.whole("clip.minicpmv_version", 0, ValueType.INT32)
        return ClipHParams(
            projector=row,
            modality=self.modality,
            n_embd=n_embd,
            n_head=n_head,
            n_head_kv=self.integer("attention.head_count_kv", n_head),
            n_embd_head=self.integer("attention.head_dim", 0) or (n_embd // n_head if n_head else 0),
            n_layer=self.integer("block_count"),
            image_size=image_size,
            patch_size=patch_size,
            n_merge=n_merge,
            warmup=warmup,
            largest=largest,
            n_wa_pattern=self.integer("n_wa_pattern", 0),
            proj_stack_factor=self.integer("projector.stack_factor", 1),
            feature_layers=self.integers("feature_layer", at_most=self.integer("block_count")),
            minicpmv_query_num=query_num or (64 if version in (3, 4, 5, 6, 100045) else 96),
            wa_layers=self.integers("wa_layer_indexes"),
        )

    def sizes(self, image_size: int, token_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The warm-up image and the largest one: `token_size` pixels a side become one token."""
        if not self.is_vision:
            n_bands = _RAW_FRAME if self.projector.name == "gemma4ua" else self.integer("num_mel_bins", 0)
            return (WARMUP_FRAMES, n_bands), (WARMUP_FRAMES, n_bands)
        max_pixels = self.max_pixels(token_size)
        side = self.projector.warmup_side
        warmup = side * token_size if side > 0 else image_size
        if side < 0:
            warmup = isqrt(max_pixels)
        largest = isqrt(max_pixels) // token_size * token_size if max_pixels else image_size
        return (warmup, warmup), (max(warmup, largest),) * 2

    def max_pixels(self, token_size: int) -> int:
        """The most pixels an image keeps, 0 when all images have one size."""
        row = self.projector
        if not row.max_tokens:
            return 0
        if self.image_max_tokens and (row.max_tokens > 0 or row.name in ("glm5v", "lightonocr")):
            return self.image_max_tokens * token_size**2
        if row.name == "lightonocr":
            return self.integer("preproc_image_size", self.integer("image_size")) ** 2
        default = row.max_tokens * token_size**2
        reads_key = row.max_tokens < 0 or row.name in ("kimik25", "hunyuanvl")
        return self.integer("image_max_pixels", default if row.max_tokens > 0 else None) if reads_key else default

    @property
    def is_vision(self) -> bool:
        return self.modality == "vision"

    def key(self, name: str) -> str:
        return f"clip.{self.modality}.{name}"

    def check_unused(self) -> None:
        """What llama.cpp reads of every encoder, and no figure depends on."""
        for name in ("feed_forward_length", "projection_dim", *(("num_mel_bins",) if self.modality == "audio" else ())):
            self.integer(name)
        self.of_type(self.key("attention.layer_norm_epsilon"), ValueType.FLOAT32)
        for key in ("clip.vision.image_mean", "clip.vision.image_std") if self.is_vision else ():
            array = self.gguf.get_array(key)
            if array is None or array.element_type is not ValueType.FLOAT32 or len(array) < _COLOURS:
                raise GGUFError(f"{self.gguf.location}: key {key!r} is {array}, expected {_COLOURS} FLOAT32 at least")

    def integer(self, name: str, default: int | None = None) -> int:
        return self.whole(self.key(name), default)

    def whole(self, key: str, default: int | None, wanted: ValueType = ValueType.UINT32) -> int:
        """A number of just this type, which llama.cpp's assertions want, and no larger than its own has room for."""
        if default is not None and key not in self.gguf.metadata:
            return default
        self.of_type(key, wanted)
        value = self.gguf.get_int(key, 0)
        if value > _INT_MAX:
            raise GGUFError(f"{self.gguf.location}: key {key!r} is {value:,}, expected {_INT_MAX:,} at most")
        return value

    def of_type(self, key: str, wanted: ValueType) -> None:
        found = self.gguf.value_types.get(key)
        if found is None:
            raise GGUFError(f"{self.gguf.location}: key {key!r} is missing, which llama.cpp requires")
        if found is not wanted:
            raise GGUFError(f"{self.gguf.location}: key {key!r} is of type {found.name}, expected {wanted.name}")

    def integers(self, name: str, *, at_most: int = _INT_MAX) -> tuple[int, ...]:
        """An array of layers; empty where there is none."""
        array = self.gguf.get_array(self.key(name))
        if array is None:
            return ()
        if array.element_type is not ValueType.INT32:
            found = array.element_type.name
            raise GGUFError(f"{self.gguf.location}: key {array.key!r} is an array of {found}, expected one of INT32")
        layers = tuple(map(int, array))
        if max(layers, default=0) > at_most:
            raise GGUFError(f"{self.gguf.location}: key {array.key!r} names layer {max(layers)} of {at_most}")
        return layers
