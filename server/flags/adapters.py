"""`--lora`, `--lora-scaled` and `--lora-init-without-apply` of llama-server, where an adapter may have a name.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from server.engine.model_info import Adapter


def add_adapter_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the flags; `adapters_of` reads them."""
    group.add_argument(
        "--lora", dest="adapters", action=_Adapters, parse=_plain, default=[], metavar="[NAME=]FILE,...",
        help="LoRA adapters, loaded beside the model and applied to requests without a field 'lora'; one with a name "
        "is applied to those alone that ask for the model MODEL:NAME",
    )  # fmt: skip
    group.add_argument(
        "--lora-scaled", dest="adapters", action=_Adapters, parse=_scaled, metavar="[NAME=]FILE:SCALE,...",
        help="the same with a scale", default=argparse.SUPPRESS,
    )  # fmt: skip
    group.add_argument(
        "--lora-init-without-apply", action="store_true",
        help="apply none of them to requests that do not ask for it (by the field 'lora', or POST /lora-adapters)",
    )  # fmt: skip


def adapters_of(args: argparse.Namespace) -> tuple[Adapter, ...]:
    """The adapters that flags name.

    Raises:
        ValueError: two of them have the same name.
    """
    adapters = tuple(args.adapters)
    names = [adapter.name for adapter in adapters if adapter.name]
    if len(set(names)) < len(names):
        raise ValueError(f"adapters are named {', '.join(names)}, expected each name once")
    if args.lora_init_without_apply:
        return tuple(replace(adapter, scale=0.0) for adapter in adapters)
    return adapters


class _Adapters(argparse.Action):
    """Adapters, separated by commas, behind those of earlier flags."""

    def __init__(self, *, parse: Callable[[str], Adapter], **options: Any) -> None:
        super().__init__(**options)
        self.parse = parse

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            found = [self.parse(each) for each in _split(str(values))]
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, ()), *found])


def _split(text: str) -> Iterator[str]:
    return (each for each in text.split(",") if each)


def _plain(text: str, scale: float = 1.0) -> Adapter:
    name, equals, path = text.partition("=")
    if not equals or "/" in name or Path(text).exists():
        return Adapter(path=text, scale=scale, named_scale=scale)
    if not name or not path:
        raise ValueError(f"{text!r} is no adapter, expected FILE or NAME=FILE")
    return Adapter(path=path, name=name, scale=0.0, named_scale=scale)


def _scaled(text: str) -> Adapter:
    path, _, scale = text.rpartition(":")
    try:
        return _plain(path, float(scale))
    except ValueError:
        raise ValueError(f"{text!r} is no adapter with a scale, expected FILE:SCALE or NAME=FILE:SCALE") from None
