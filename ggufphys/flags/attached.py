"""llama.cpp's flags for what stands beside a model: adapters, an encoder, a draft model."""

import argparse
from typing import Any

from ggufphys.flags.draft import add_draft_arguments, add_guesser_argument
from ggufphys.flags.numbers import count


def add_attachment_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags; `commands.attached` reads what they leave behind."""
    group = parser.add_argument_group("what stands beside it (llama.cpp's flags)", argument_default=argparse.SUPPRESS)
    for name, what in (("lora", "a LoRA adapter"), ("control-vector", "a control vector")):
        group.add_argument(
            f"--{name}", action=_Files, metavar="FILE,...", help=f"{what}; several: by commas, or the flag again"
        )
        group.add_argument(
            f"--{name}-scaled", action=_ScaledFiles, metavar="FILE:SCALE,...", help="the same with a scale"
        )
    group.add_argument("-mm", "--mmproj", metavar="FILE", help="the encoder of images or sound")
    group.add_argument(
        "--no-mmproj-offload",
        dest="mmproj_offload",
        action="store_false",
        help="the encoder on the host, not on a device",
    )
    group.add_argument("--mmproj-offload", action="store_true", help=argparse.SUPPRESS)  # so it is anyway
    group.add_argument(
        "-mmdev", "--mmproj-device", metavar="DEVICE", help="the encoder's device (default: the first; none: the host)"
    )
    group.add_argument(
        "--image-max-tokens", type=count, metavar="N", help="tokens an image takes at most (default: the file says)"
    )
    group.add_argument(
        "--mtmd-batch-max-tokens", dest="batch_max_tokens", type=count, metavar="N",
        help="tokens of images that are encoded at once (default 1024)",
    )  # fmt: skip
    add_draft_arguments(group)
    add_guesser_argument(group)


class _Files(argparse.Action):
    """Paths, separated by commas, behind those of earlier flags."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        paths = [path for path in str(values).split(",") if path]
        if not paths:  # as an unset variable of the shell leaves it
            raise argparse.ArgumentError(self, f"{values!r} names nothing, expected {self.metavar}")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, ()), *paths])


class _ScaledFiles(argparse.Action):
    """Paths with a scale each, which costs nothing and is only checked."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        paths = []
        for pair in filter(None, str(values).split(",")):
            path, _, scale = pair.rpartition(":")
            try:
                float(scale)
            except ValueError:
                raise argparse.ArgumentError(self, f"{pair!r} has no scale (expected FILE:SCALE)") from None
            paths.append(path)
        if not paths:
            raise argparse.ArgumentError(self, f"{values!r} names nothing, expected {self.metavar}")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, ()), *paths])
