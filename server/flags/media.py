"""`--mmproj` and what belongs to it: llama-server's flags for the encoder of images and sounds.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init.
"""

import argparse
import re
from pathlib import Path
from typing import Final

from ggufphys import GGUFPhysError, UnsupportedError, open_gguf
from ggufphys.clip.hparams import read_clip
from ggufphys.flags.numbers import count
from ggufphys.gguf.locate import local_path
from ggufphys.loads.attached import require_attached
from ggufphys.loads.check import require_data
from server.engine.media import Encoder
from server.flags.hub import hub_reference
from server.journal import warn

# Whose tokens depend on what stands in front of an image: mtmd.cpp, mtmd_tokenizer::add_media.
BY_PLACE: Final = ("deepseek4v", "hunyuanvl")


def add_media_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the flags; `encoder_of` reads them."""
    group.add_argument(
        "-mm", "--mmproj", metavar="FILE", help="the encoder of images or sounds, for messages that have some"
    )
    group.add_argument(
        "--no-mmproj", "--no-mmproj-auto", dest="mmproj_auto", action="store_false",
        help="not the one that was downloaded with the model of -hf, which is taken without a flag",
    )  # fmt: skip
    group.add_argument("--mmproj-auto", action="store_true", help=argparse.SUPPRESS, default=True)  # so it is anyway
    group.add_argument(
        "--mmproj-offload", action=argparse.BooleanOptionalAction, default=True,
        help="the encoder on a device, where the model has some (default: so)",
    )  # fmt: skip
    group.add_argument(
        "--image-min-tokens", type=count, default=0, metavar="N",
        help="tokens an image takes at least, of encoders that take images of any size (default: the file says)",
    )  # fmt: skip
    group.add_argument(
        "--image-max-tokens", type=count, default=0, metavar="N", help="and at most (default: the file says)"
    )


def encoder_of(args: argparse.Namespace, model: Path, *, vectors: bool) -> Encoder | None:
    """The encoder that flags name, or that was downloaded with the model of -hf and can be served.

    `vectors`: these are what the model gives, and no text.

    Raises:
        ValueError: the file is none, or a flag beside it leaves nothing for it to do.
        GGUFError, RefusedError, UnsupportedError: it is broken, llama.cpp would not load it, or it is not served.
        OSError: the path does not exist or may not be read.
    """
    reasons = (
        (args.engine == "numpy", "--engine numpy"),
        (args.batch_invariant, "--batch-invariant"),
        (vectors, "a model that gives vectors of texts"),
    )
    for_text = next((what for holds, what in reasons if holds), "")
    if not args.mmproj:
        found = downloaded_with(model) if args.mmproj_auto and hub_reference(args) is not None else None
        if found is None or for_text:
            return None
        try:
            return _encoder(args, found)
        except (GGUFPhysError, ValueError) as error:
            warn(f"warning: images and sounds are not read: {error}")
            return None
    if for_text:
        raise ValueError(f"--mmproj: not with {for_text}, where text alone is read; leave one out")
    return _encoder(args, local_path(args.mmproj))


def downloaded_with(model: Path) -> Path | None:
    """The encoder beside a model's file, of several the one whose weights have nearly as many bits.

    Source: llama.cpp 0c1e570 common/download.cpp, find_best_sibling, extract_quant_bits.
    """
    found = sorted(path for path in model.parent.glob("*mmproj*.gguf") if path.exists())
    return min(found, key=lambda path: abs(_bits(path) - _bits(model)), default=None)


def _bits(path: Path) -> int:
    type_name = re.search(r"[-.](\w+)$", re.sub(r"-\d{5}-of-\d{5}$", "", path.stem))
    number = type_name and re.search(r"\d+", type_name[1])
    return int(number[0]) if number else 0


def _encoder(args: argparse.Namespace, path: Path) -> Encoder:
    if args.image_max_tokens and args.image_min_tokens > args.image_max_tokens:
        raise ValueError(f"--image-min-tokens is {args.image_min_tokens}, more than {args.image_max_tokens} at most")
    with open_gguf(path) as gguf:
        encoders = read_clip(gguf, image_max_tokens=args.image_max_tokens)
        require_data(gguf)
        require_attached(gguf)
    for encoder in encoders:
        if encoder.projector.name in BY_PLACE:
            raise UnsupportedError(
                f"{path}: projector type {encoder.projector.name!r} is not served yet: what an image is depends on "
                "what stands in front of it there"
            )
    if not any(encoder.modality in ("vision", "audio") for encoder in encoders):
        raise UnsupportedError(f"{path}: it has no encoder of images or sounds, and nothing else of it is served")
    return Encoder(
        path=str(path), offload=args.mmproj_offload, image_min_tokens=args.image_min_tokens,
        image_max_tokens=args.image_max_tokens,
    )  # fmt: skip
