"""llama-server's flags that name models of the Hub: served if they have been downloaded, since nothing is fetched here.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init; common/download.cpp, common_download_get_hf_plan.
"""

import argparse
from typing import Final

from ggufphys.flags.draft import MODEL as DRAFT
from ggufphys.gguf.locate import HUB

_REFERENCE: Final = (HUB + "{}").format


def add_hub_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: a model of the Hub, its file, and a draft model of the Hub, which goes where -md does."""
    parser.add_argument(
        "-hf", "-hfr", "--hf-repo", type=_REFERENCE, metavar="OWNER/REPO[:TYPE]",
        help="the same as hf:OWNER/REPO[:TYPE]: a model of the Hugging Face Hub that has been downloaded",
    )  # fmt: skip
    parser.add_argument("-hff", "--hf-file", metavar="FILE", help="which file of that repository")
    parser.add_argument(
        "-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf", dest=DRAFT, type=_REFERENCE,
        default=argparse.SUPPRESS, metavar="OWNER/REPO[:TYPE]", help="the same for the draft model",
    )  # fmt: skip


def hub_reference(args: argparse.Namespace) -> str | None:
    """What -hf and -hff name together, as hf:OWNER/REPO[:FILE]; None without them.

    Raises:
        ValueError: a file without a repository.
    """
    named: str | None = args.hf_repo
    if args.hf_file is None:
        return named
    if named is None:
        raise ValueError(f"--hf-file {args.hf_file}: of which repository? name it with --hf-repo")
    repo, _, _ = named.removeprefix(HUB).partition(":")  # a type beside a file's name says nothing
    return f"{HUB}{repo}:{args.hf_file}"
