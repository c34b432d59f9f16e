"""The flags that name models, llama.cpp's among them."""

import argparse
from typing import Final

_HELP: Final = (
    "a GGUF file (of a split model any shard), https://..., hf:owner/repo[@revision][:file], or ollama:name[:tag]"
)


def add_model_arguments(parser: argparse.ArgumentParser, *, several: bool = False, required: bool = True) -> None:
    """MODEL as `args.model`, or with `several` MODEL... as `args.models`, and what opening them needs.

    llama.cpp's flags for the model do, too: -m, -mu and -hf.
    """
    name = "models" if several else "model"
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(
        name, nargs="*" if several else "?", default=argparse.SUPPRESS, metavar="MODEL",
        help=f"{_HELP}; or folders and patterns of files; without it, all models of this machine" if several else _HELP,
    )  # fmt: skip
    nargs = 1 if several else None
    for flags, make, text in (
        (("-m", "--model"), str, "the same, under llama.cpp's name"),
        (("-mu", "--model-url"), str, "the same, for an address"),
        (("-hf", "-hfr", "--hf-repo"), "hf:{}".format, "the same as hf:MODEL"),
    ):
        group.add_argument(
            *flags, dest=name, nargs=nargs, type=make, default=argparse.SUPPRESS, metavar="MODEL", help=text
        )
    parser.add_argument("--force", action="store_true", help="predict for a file that llama.cpp would not load, too")
    parser.add_argument(
        "--no-cache", dest="use_cache", action="store_false", help="fetch the header of a remote file again"
    )
