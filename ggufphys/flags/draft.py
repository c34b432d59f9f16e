"""llama.cpp's flags of a draft model: which file, where it lies, how its cache is kept, how much it drafts.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init.
"""

import argparse
from typing import Any, Final

from ggufphys.flags.devices import layers_to_offload
from ggufphys.flags.run import count
from ggufphys.params import CACHE_TYPES

MODEL: Final = "draft_model"
_FIELDS: Final = ("type_k", "type_v", "n_gpu_layers", "n_max")


def add_draft_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the flags; `draft_fields` reads what they leave behind."""

    def add(*names: str, **options: Any) -> None:
        group.add_argument(*names, default=argparse.SUPPRESS, **options)

    add(
        "-md", "--model-draft", "--spec-draft-model", dest=MODEL, metavar="FILE",
        help="a draft model; its context is as long as the model's",
    )  # fmt: skip
    for letter in "kv":
        add(
            f"-ct{letter}d", f"--cache-type-{letter}-draft", f"--spec-draft-type-{letter}",
            dest=f"draft_type_{letter}", choices=tuple(CACHE_TYPES), metavar="TYPE",
            help=f"type of the draft's {letter.upper()} cache (default f16)",
        )  # fmt: skip
    add(
        "-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl", dest="draft_n_gpu_layers",
        type=layers_to_offload, metavar="N", help="layers of the draft to offload (default all)",
    )  # fmt: skip
    add("--spec-draft-n-max", dest="draft_n_max", type=count, metavar="N", help="tokens drafted at once (default 3)")


def draft_fields(args: argparse.Namespace) -> dict[str, Any]:
    """What flags say of the draft, as fields of `Draft` (ggufphys/memory/attachments)."""
    return {name: getattr(args, f"draft_{name}") for name in _FIELDS if hasattr(args, f"draft_{name}")}
