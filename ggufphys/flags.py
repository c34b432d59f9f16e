"""llama.cpp's command-line flags that say how a model is run, so that a llama-server line can be pasted behind ours.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init (names); defaults are those of `Params`.
"""

import argparse
from typing import Final, get_args

from ggufphys.params import CACHE_TYPES, FlashAttn, Params

_DEFAULTS: Final = Params()


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `params_from` reads."""
    group = parser.add_argument_group("how it is run (llama.cpp's flags)")
    group.add_argument(
        "-c", "--ctx-size", type=count, default=_DEFAULTS.n_ctx, metavar="N",
        help="context in tokens, all sequences together (0: as trained; 8k works too; default 0)",
    )  # fmt: skip
    group.add_argument(
        "-np", "--parallel", type=count, default=_DEFAULTS.n_seq_max, metavar="N",
        help="parallel sequences, n_seq_max (default 1)",
    )  # fmt: skip
    group.add_argument(
        "-kvu", "--kv-unified", action=argparse.BooleanOptionalAction, default=_DEFAULTS.kv_unified,
        help="one KV cache shared by all sequences, instead of one each",
    )  # fmt: skip
    group.add_argument(
        "-b", "--batch-size", type=count, default=_DEFAULTS.n_batch, metavar="N",
        help="logical batch, n_batch (default 2048)",
    )  # fmt: skip
    group.add_argument(
        "-ub", "--ubatch-size", type=count, default=_DEFAULTS.n_ubatch, metavar="N",
        help="physical batch, n_ubatch (default 512)",
    )  # fmt: skip
    for letter in "kv":
        group.add_argument(
            f"-ct{letter}", f"--cache-type-{letter}", default="f16", choices=tuple(CACHE_TYPES), metavar="TYPE",
            help=f"type of the {letter.upper()} cache: {', '.join(CACHE_TYPES)} (default f16)",
        )  # fmt: skip
    group.add_argument(
        "-fa", "--flash-attn", default=_DEFAULTS.flash_attn, choices=get_args(FlashAttn),
        help="flash attention (default auto)",
    )  # fmt: skip
    group.add_argument("--swa-full", action="store_true", help="full-size cache for sliding-window layers")
    group.add_argument(
        "--n-outputs-max", type=count, default=_DEFAULTS.n_outputs_max, metavar="N",
        help="logits rows in a batch (0: n_batch; llama-server sets about --parallel)",
    )  # fmt: skip
    group.add_argument("--no-mmap", action="store_true", help="read the weights into memory; do not map the file")
    group.add_argument("--no-repack", action="store_true", help="no extra buffers for repacked weights")
    group.add_argument(
        "-t", "--threads", type=count, default=_DEFAULTS.n_threads, metavar="N",
        help="threads (0: one for each physical core)",
    )  # fmt: skip


def params_from(args: argparse.Namespace) -> Params:
    """The `Params` that the parsed flags ask for.

    Raises:
        ValueError: a value that llama.cpp would refuse.
    """
    return Params(
        n_ctx=args.ctx_size,
        n_batch=args.batch_size,
        n_ubatch=args.ubatch_size,
        n_seq_max=args.parallel,
        n_outputs_max=args.n_outputs_max,
        kv_unified=args.kv_unified,
        swa_full=args.swa_full,
        type_k=args.cache_type_k,
        type_v=args.cache_type_v,
        flash_attn=args.flash_attn,
        use_mmap=not args.no_mmap,
        use_extra_bufts=not args.no_repack,
        n_threads=args.threads,
    )


def count(text: str) -> int:
    """A whole number, or one with `k` (1024) or `m` (1024²) behind it: `8k` is 8192."""
    digits, factor = text, 1
    if text[-1:].lower() in ("k", "m"):
        digits, factor = text[:-1], 1024 if text[-1].lower() == "k" else 1024 * 1024
    if not digits.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a count (expected a whole number such as 8192 or 8k)")
    return int(digits) * factor
