"""`--mmproj` and what belongs to it: llama-server's flags for the encoder of images and sounds.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init.
"""

import argparse
from typing import Final

from ggufphys import UnsupportedError, open_gguf
from ggufphys.clip.hparams import read_clip
from ggufphys.flags.numbers import count
from ggufphys.gguf.locate import local_path
from ggufphys.loads.attached import require_attached
from ggufphys.loads.check import require_data
from server.engine.media import Encoder

# Whose tokens depend on what stands in front of an image: mtmd.cpp, mtmd_tokenizer::add_media.
BY_PLACE: Final = ("deepseek4v", "hunyuanvl")


def add_media_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the flags; `encoder_of` reads them."""
    group.add_argument(
        "-mm", "--mmproj", metavar="FILE", help="the encoder of images or sounds, for messages that have some"
    )
    group.add_argument(
        "--no-mmproj", "--no-mmproj-auto", dest="mmproj", action="store_const", const=None, default=argparse.SUPPRESS,
        help="none (as it is without the flag)",
    )  # fmt: skip
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


def encoder_of(args: argparse.Namespace) -> Encoder | None:
    """The encoder that flags name.

    Raises:
        ValueError: the file is none, or a flag beside it leaves nothing for it to do.
        GGUFError, RefusedError, UnsupportedError: it is broken, llama.cpp would not load it, or it is not served.
        OSError: the path does not exist or may not be read.
    """
    if not args.mmproj:
        return None
    for holds, flag in (
        (args.engine == "numpy", "--engine numpy"),
        (args.batch_invariant, "--batch-invariant"),
        (getattr(args, "embeddings", False), "--embeddings and --rerank"),
    ):
        if holds:
            raise ValueError(f"--mmproj: not with {flag}, where text alone is read; leave one out")
    if args.image_max_tokens and args.image_min_tokens > args.image_max_tokens:
        raise ValueError(f"--image-min-tokens is {args.image_min_tokens}, more than {args.image_max_tokens} at most")
    path = local_path(args.mmproj)
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
