"""llama.cpp's flags of a draft model: which file, where it lies, how its cache is kept, how much it drafts.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Final

from ggufphys.flags.devices import EXPERTS, Append, Override, device_fields, layers_to_offload, n_layers, overrides
from ggufphys.flags.numbers import count
from ggufphys.flags.others import not_considered
from ggufphys.params import CACHE_TYPES, CPU_BUFFER, Device

MODEL: Final = "draft_model"
_FIELDS: Final = ("type_k", "type_v", "n_gpu_layers", "n_max", "override_tensor", "n_cpu_moe")
HEADS: Final = "draft-mtp"
LOOKUPS: Final = "ngram-"  # guesses from the text, whose rows of logits are not counted
# common/speculative.cpp, common_speculative_type_from_name_map
TYPES: Final = (
    "none", "draft-simple", "draft-eagle3", HEADS, "draft-dflash", "draft-dspark", "ngram-simple", "ngram-map-k",
    "ngram-map-k4v", "ngram-mod", "ngram-cache",
)  # fmt: skip
# Those that commands without a draft take as flags that change nothing.
NAMES: Final = (
    "--spec-draft-device", "-devd", "--device-draft", "--spec-draft-override-tensor", "-otd",
    "--override-tensor-draft", "--spec-draft-cpu-moe", "-cmoed", "--cpu-moe-draft", "--spec-draft-n-cpu-moe",
    "--spec-draft-ncmoe", "-ncmoed", "--n-cpu-moe-draft", "--spec-type",
)  # fmt: skip


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
    add(
        "-devd", "--device-draft", "--spec-draft-device", dest="draft_device_specs", action=Append,
        metavar="NAME[=SIZE],...", help="devices to offload the draft to, or none (default: as the model)",
    )  # fmt: skip
    for names, options in (
        (("-otd", "--override-tensor-draft", "--spec-draft-override-tensor"), {
            "parse": overrides, "metavar": "PATTERN=BUFFER,...", "help": "put the draft's tensors elsewhere, as -ot",
        }),
        (("-cmoed", "--cpu-moe-draft", "--spec-draft-cpu-moe"), {
            "parse": lambda _: ((EXPERTS, CPU_BUFFER),), "nargs": 0, "help": "all of the draft's experts on the CPU",
        }),
    ):  # fmt: skip
        add(*names, dest="draft_override_tensor", action=Override, counted="draft_n_cpu_moe", **options)
    add(
        "-ncmoed", "--n-cpu-moe-draft", "--spec-draft-ncmoe", "--spec-draft-n-cpu-moe", dest="draft_n_cpu_moe",
        type=n_layers, metavar="N", help="the experts of the draft's first N layers on the CPU",
    )  # fmt: skip
    add("--spec-draft-n-max", dest="draft_n_max", type=count, metavar="N", help="tokens drafted at once (default 3)")


def add_guesser_argument(group: "argparse._ArgumentGroup") -> None:
    """Add --spec-type, which `guesses_by_heads` reads."""
    group.add_argument(
        "--spec-type", dest="spec_types", action=_Guessers, default=argparse.SUPPRESS, metavar="TYPE,...",
        help=f"{HEADS}: the model's own prediction heads guess tokens; other draft-* are what -md is for, ngram-* are "
        "not considered",
    )  # fmt: skip


def guesses_by_heads(args: argparse.Namespace) -> bool:
    """Is the model to guess by its own heads?"""
    return HEADS in getattr(args, "spec_types", ()) and not hasattr(args, MODEL)


class _Guessers(argparse.Action):
    """Kinds of guessing, separated by commas; a later flag counts alone."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        names = tuple(str(values).split(","))
        for name in names:
            if name not in TYPES:
                raise argparse.ArgumentError(self, f"{name!r} is no kind of guessing, expected {', '.join(TYPES)}")
            if name.startswith(LOOKUPS):
                not_considered(namespace, f"--spec-type {name}")
        setattr(namespace, self.dest, names)


def draft_fields(args: argparse.Namespace, found: Callable[[], Sequence[Device]] = tuple) -> dict[str, Any]:
    """What flags say of the draft, as fields of `Draft` (ggufphys/memory/attachments); `found` as `device_fields` has
    it.
    """
    fields = {name: getattr(args, f"draft_{name}") for name in _FIELDS if hasattr(args, f"draft_{name}")}
    specs: list[str] = getattr(args, "draft_device_specs", [])
    if specs:
        named = argparse.Namespace(device_specs=specs, rpc_specs=getattr(args, "rpc_specs", ()))
        devices = device_fields(named, found)["devices"]
        by_rpc = any(spec.startswith("RPC") for spec in specs)  # only those that are named, unlike the model's
        fields["devices"] = tuple(device for device in devices if by_rpc or not device.endpoint)
    return fields
