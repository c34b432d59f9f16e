"""Whose are a draft model, an encoder and adapters, where several models are served? `-md NAME=FILE,...`, `-mm` and
`--lora` likewise, and `NAME:ADAPTER=FILE` for an adapter that has a name, too.
"""

import argparse
from collections.abc import Collection
from dataclasses import replace

from ggufphys.flags.draft import MODEL
from server.engine.model_info import Adapter
from server.flags.guessing import DRAFT


def by_model(args: argparse.Namespace, names: Collection[str]) -> dict[str, argparse.Namespace]:
    """The flags as each model has them: with its own draft, encoder and adapters, and all else alike.

    Raises:
        ValueError: a draft, an encoder or an adapter is none of theirs, or a draft is asked for and none named.
    """
    drafts = _files("--model-draft", getattr(args, MODEL, None), names)
    encoders, adapters = _files("--mmproj", args.mmproj, names), _adapters(args.adapters, names)
    if not drafts and DRAFT in (args.spec_type or ()):
        raise ValueError(f"--spec-type {DRAFT}: name the draft models with --model-draft NAME=FILE,...")
    found = {}
    for name in names:
        found[name] = own = argparse.Namespace(**vars(args))
        own.adapters, own.mmproj = adapters[name], encoders.get(name)
        setattr(own, MODEL, drafts.get(name))
        if args.spec_type and name not in drafts:
            own.spec_type = tuple(each for each in args.spec_type if each != DRAFT)
    return found


def _files(flag: str, value: str | None, names: Collection[str]) -> dict[str, str]:
    found = {}
    for each in filter(None, (value or "").split(",")):
        name, _, path = each.partition("=")
        if name not in names or not path or name in found:
            raise ValueError(f"{flag} {each}: expected NAME=FILE,..., with NAME one of {', '.join(names)}")
        found[name] = path
    return found


def _adapters(adapters: Collection[Adapter], names: Collection[str]) -> dict[str, list[Adapter]]:
    found: dict[str, list[Adapter]] = {name: [] for name in names}
    for adapter in adapters:
        owners = [name for name in names if f"{adapter.name}:".startswith(f"{name}:")]
        if not owners:
            raise ValueError(
                f"--lora {f'{adapter.name}=' if adapter.name else ''}{adapter.path}: expected NAME=FILE or "
                f"NAME:ADAPTER=FILE, with NAME one of {', '.join(names)}"
            )
        owner = max(owners, key=len)
        own_name = adapter.name[len(owner) + 1 :]
        scale = adapter.scale if own_name else adapter.named_scale  # without a name of its own it is applied to all
        found[owner].append(replace(adapter, name=own_name, scale=scale))
    return found
