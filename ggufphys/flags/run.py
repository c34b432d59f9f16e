"""llama.cpp's command-line flags that say how a model is run, so that a llama-server line can be pasted behind ours.

A flag's destination is the field of `Params` it sets, and it has no default: what nobody asked for is absent, so that
a command may take it from elsewhere (a log, say) before `Params` does.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init (names).
"""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

from ggufphys.flags.devices import add_device_arguments, device_fields
from ggufphys.flags.numbers import count, integer
from ggufphys.frozen import fields, replace
from ggufphys.params import CACHE_TYPES, LOAD_MODES, Device, FlashAttn, Params

SWITCHES: Final = {  # llama.cpp's words for them
    "true": "on", "enabled": "on", "1": "on", "false": "off", "disabled": "off", "0": "off", "-1": "auto",
}  # fmt: skip


def add_run_arguments(
    parser: argparse.ArgumentParser, *, n_ctx: int | None = None, ctx_is_least: bool = False, builds: bool = False
) -> None:
    """Add the flags that `params_from` reads; `n_ctx` is a command's own default.

    `--ctx` is another name of `-c`, except for a command to which it is the least context.
    With `builds` the command predicts for any llama.cpp; the others run the installed one.
    """
    group = parser.add_argument_group("how it is run (llama.cpp's flags)", argument_default=argparse.SUPPRESS)
    _add_context(group, n_ctx=n_ctx, ctx_is_least=ctx_is_least)
    _add_weights(group)
    if builds:
        group.add_argument(
            "--llama-build", dest="llama_build", type=_build, metavar="BUILD",
            help="which llama.cpp it is predicted for: b11739, latest, pinned, or the path of a llama-server or "
            "libllama, which is asked (default latest, the newest recorded; with --log the log's own)",
        )  # fmt: skip
    else:
        from ggufphys.flags.installed import refuse_build  # which inspect and fit do without

        refuse_build(parser)
    devices = parser.add_argument_group("devices (llama.cpp's flags)", argument_default=argparse.SUPPRESS)
    add_device_arguments(devices)


def _add_context(group: "argparse._ArgumentGroup", *, n_ctx: int | None, ctx_is_least: bool) -> None:
    group.add_argument(
        "-c", "--ctx-size", *(() if ctx_is_least else ("--ctx",)), dest="n_ctx", type=count, metavar="N",
        default=argparse.SUPPRESS if n_ctx is None else n_ctx,
        help=f"context in tokens, all sequences together (0: as trained; 8k works too; default {n_ctx or 0})",
    )  # fmt: skip
    group.add_argument(
        "-np", "--parallel", dest="n_seq_max", action=_Sequences, metavar="N",
        help="parallel sequences, n_seq_max (-1, the default: 4 slots of llama-server, 1 of the library)",
    )  # fmt: skip
    group.add_argument(
        "-kvu", "--kv-unified", action=argparse.BooleanOptionalAction,
        help="one KV cache shared by all sequences, instead of one each",
    )  # fmt: skip
    group.add_argument("-no-kvu", dest="kv_unified", action="store_false", help=argparse.SUPPRESS)
    group.add_argument(
        "-b", "--batch-size", dest="n_batch", type=count, metavar="N",
        help="logical batch, n_batch (default 2048)",
    )  # fmt: skip
    group.add_argument(
        "-ub", "--ubatch-size", dest="n_ubatch", type=count, metavar="N",
        help="physical batch, n_ubatch (default 512)",
    )  # fmt: skip
    for letter in "kv":
        group.add_argument(
            f"-ct{letter}", f"--cache-type-{letter}", dest=f"type_{letter}", choices=tuple(CACHE_TYPES), metavar="TYPE",
            help=f"type of the {letter.upper()} cache: {', '.join(CACHE_TYPES)} (default f16)",
        )  # fmt: skip
    group.add_argument(
        "-fa", "--flash-attn", type=switch, choices=get_args(FlashAttn),
        help="flash attention (default auto)",
    )  # fmt: skip
    group.add_argument("--swa-full", action="store_true", help="full-size cache for sliding-window layers")
    group.add_argument(
        "--n-outputs-max", dest="n_outputs_max", type=count, metavar="N",
        help="logits rows in a batch (0: n_batch; llama-server sets about --parallel)",
    )  # fmt: skip


def _add_weights(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "-lm", "--load-mode", action=_LoadMode, choices=("auto", *LOAD_MODES), metavar="MODE",
        help=f"how weights are loaded: auto (mmap), {', '.join(LOAD_MODES)} (default auto)",
    )  # fmt: skip
    group.add_argument(
        "--mmap", dest="use_mmap", action=argparse.BooleanOptionalAction,
        help="map the file, or read the weights into memory; like the next two an older name for a load mode",
    )  # fmt: skip
    group.add_argument("--mlock", dest="use_mlock", action="store_true", help="lock the weights in main memory")
    group.add_argument(
        "-dio", "--direct-io", dest="use_direct_io", action="store_true", help="read the file past the page cache"
    )
    group.add_argument("--repack", dest="use_extra_bufts", action="store_true", help=argparse.SUPPRESS)
    group.add_argument(
        "-nr", "--no-repack", dest="use_extra_bufts", action="store_false", help="no extra buffers for repacked weights"
    )
    group.add_argument(
        "--amx", dest="use_amx", action="store_true",
        help="this llama.cpp is built with AMX kernels, whose layout weights then take (not a flag of llama.cpp)",
    )  # fmt: skip
    group.add_argument(
        "--blas", dest="use_blas", action="store_true",
        help="this llama.cpp is built with a BLAS backend, which converts weights to F32 (not a flag of llama.cpp)",
    )  # fmt: skip
    group.add_argument(
        "-t", "--threads", dest="n_threads", type=_threads, metavar="N",
        help="threads (default: one for each physical core; 0 or less: for each that the system counts)",
    )  # fmt: skip


class _Sequences(argparse.Action):
    """A number of sequences; what nobody chooses is left to whoever runs it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if str(values).startswith("-") and str(values)[1:].isdecimal():
            vars(namespace).pop(self.dest, None)
            return
        try:
            setattr(namespace, self.dest, count(values))
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from None


class _LoadMode(argparse.Action):
    """Sets the fields of `Params` that a load mode stands for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Called for each `--load-mode`."""
        for name, value in LOAD_MODES["mmap" if values == "auto" else str(values)].items():
            setattr(namespace, name, value)


def given(args: argparse.Namespace, found: Callable[[], Sequence[Device]] = tuple) -> dict[str, Any]:
    """The fields of `Params` that flags (or a parser's own defaults) set, by name.

    Raises:
        ValueError: a device's size that is none.
    """
    named = {f.name: getattr(args, f.name) for f in fields(Params) if hasattr(args, f.name)}
    return {**named, **device_fields(args, found)}


def params_from(
    args: argparse.Namespace, base: Params | None = None, *, found: Callable[[], Sequence[Device]] | None = None
) -> Params:
    """The `Params` that the parsed flags ask for; what they leave open is as in `base` (default: llama.cpp's).

    `found` gives the devices of the machine it will run on: used when flags name none, and for sizes they leave out.

    Raises:
        ValueError: a value that llama.cpp would refuse.
    """
    asked = given(args, found or tuple)
    if found is not None and "devices" not in asked:
        asked["devices"] = tuple(found())
    return replace(base or Params(), **asked)


def _build(text: str) -> int:
    from ggufphys.builds.asked import build_named  # which may need a child process

    try:
        return build_named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _threads(text: str) -> int:
    """Threads; 0 and less are all that the system counts.

    Source: llama.cpp 0c1e570 common/arg.cpp, --threads (hardware_concurrency).
    """
    n = integer(text)
    return n if n > 0 else os.cpu_count() or 1


def switch(text: str) -> str:
    """`on`, `off` or `auto` for any of llama.cpp's words for them.

    Source: llama.cpp 0c1e570 common/arg.cpp, is_truthy, is_falsey, is_autoy.
    """
    return SWITCHES.get(text, text)
