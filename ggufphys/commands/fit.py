"""`ggufphys fit MODEL --memory 24GiB,12GiB`: how is it best run there? As flags for llama-server."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, get_args

from ggufphys.builds.proven import require_known
from ggufphys.commands.attached import attaches_files, predicting, with_server
from ggufphys.commands.devices import params_here
from ggufphys.commands.fit_speed import Paces
from ggufphys.commands.opening import opened
from ggufphys.flags.attached import add_attachment_arguments
from ggufphys.flags.draft import NAMES as DRAFT_FLAGS
from ggufphys.flags.model import add_model_arguments
from ggufphys.flags.numbers import count
from ggufphys.flags.others import add_other_flags
from ggufphys.flags.questions import add_machine_argument
from ggufphys.flags.run import add_run_arguments, given
from ggufphys.flags.server import add_server_arguments, run_as
from ggufphys.frozen import replace
from ggufphys.gguf.locate import is_remote, local_file, names_several
from ggufphys.machine import host
from ggufphys.machine.devices import find_devices
from ggufphys.memory.predict import Predictor
from ggufphys.params import HOST, Params
from ggufphys.plan.fit import MARGIN_BYTES, Budget, Fitter, Place, default_margin
from ggufphys.plan.fit_flags import run_flags
from ggufphys.plan.fit_space import N_CTX_MIN, Prefer
from ggufphys.report.fit import fit_section
from ggufphys.report.inspection import Inspection, inspect_text
from ggufphys.report.inspection_json import inspect_json
from ggufphys.units import format_bytes, parse_bytes, parse_memory

if TYPE_CHECKING:
    from ggufphys.plan.fit_help import Help

CACHE_RAM_MIB: Final = 8192  # llama-server's --cache-ram, if nobody says otherwise
_CHOSEN: Final = frozenset(
    (
        "n_ctx",
        "type_k",
        "type_v",
        "n_ubatch",
        "use_mmap",
        "use_extra_bufts",
        "n_gpu_layers",
        "n_cpu_moe",
        "tensor_split",
    )
)
# Attachments are passed on as they were given: their destination, and llama-server's flag.
_PASSED_ON: Final = {
    "lora": "--lora", "lora_scaled": "--lora-scaled", "control_vector": "--control-vector",
    "control_vector_scaled": "--control-vector-scaled", "mmproj": "--mmproj", "image_max_tokens": "--image-max-tokens",
    "batch_max_tokens": "--mtmd-batch-max-tokens", "draft_model": "-md", "draft_type_k": "-ctkd",
    "draft_type_v": "-ctvd", "draft_n_gpu_layers": "-ngld", "draft_n_max": "--spec-draft-n-max",
    "draft_device_specs": "-devd", "draft_n_cpu_moe": "-ncmoed",
    "n_ctx_checkpoints": "-ctxcp", "spec_types": "--spec-type",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, how much memory there is, what is wanted most, and flags that are not to be chosen."""
    add_model_arguments(parser, required=False)  # --on list needs none
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    group = parser.add_argument_group("how much there is, and what for")
    group.add_argument(
        "--memory", metavar="SIZE,...",
        help="free memory of each device, such as 24GiB,12GiB (default: what this machine has)",
    )  # fmt: skip
    group.add_argument("--ram", metavar="SIZE", help="main memory that the process may use (default: as --memory)")
    group.add_argument(
        "--margin", metavar="SIZE,...",
        help=f"to be left free on each device (default {format_bytes(MARGIN_BYTES)}, as llama.cpp's --fit-target, or a "
        "quarter of the device if that is less)",
    )  # fmt: skip
    group.add_argument(
        "--ctx", "-fitc", "--fit-ctx", dest="ctx", type=count, metavar="N",
        help=f"the least context, all sequences together (default {N_CTX_MIN}, for each where they don't share it)",
    )  # fmt: skip
    group.add_argument(
        "--prefer", choices=get_args(Prefer), default="speed",
        help="what is wanted most: layers on the devices, context, or unquantised K and V (default speed)",
    )  # fmt: skip
    group.add_argument(
        "--target", type=_rate, metavar="RATE",
        help="generate at least so fast (20tok/s), with as much context as that leaves",
    )  # fmt: skip
    add_machine_argument(group)
    add_run_arguments(parser, ctx_is_least=True, builds=True)
    add_attachment_arguments(parser)
    add_server_arguments(parser)
    add_other_flags(parser, but=("-fitc", "--fit-ctx", *DRAFT_FLAGS))


def run(args: argparse.Namespace) -> int:
    """Print the best way to run it; exit code 1, and what would help, when nothing fits."""
    if args.on == "list":
        from ggufphys.report.published import machines_json, machines_text  # when it is asked for

        print(machines_json() if args.json else machines_text())
        return 0
    if not hasattr(args, "model"):
        raise ValueError("no MODEL is named: expected a GGUF file, https://..., hf:owner/repo or ollama:name")
    if args.ctx is not None and hasattr(args, "n_ctx"):
        raise ValueError("--ctx is the least context that will do, -c the one to take: give one of them")
    params, notes = _params(args)
    budget, more_notes = _budget(args)
    # a number of layers that means all says nothing
    fixed = {name for name in _CHOSEN & set(given(args)) if (name, params.n_gpu_layers) != ("n_gpu_layers", -1)}
    paces = Paces(args, params)
    if names_several([args.model]):
        from ggufphys.commands.fit_folder import Fitting, run_fit_folder  # what one model does not need

        return run_fit_folder(args, Fitting(params, budget, fixed, paces), (*notes, *more_notes))
    with opened(args.model, use_cache=args.use_cache) as gguf:
        require_known(gguf.architecture, params.llama_build)
        predictor = Predictor(gguf, force=args.force)
        with predicting(args, predictor) as predict:
            fitter = Fitter(
                predictor, params, budget,
                fixed=fixed, n_ctx_min=args.ctx or 0, predict=predict if attaches_files(args) else None,
            )  # fmt: skip
            paced = paces.choose(fitter, fitter.fit(args.prefer))
            fit = paced.fit
            suggestions = () if fit.fits else _helps(fitter)
            chosen = fit.trial.params
            prediction = predict(chosen)  # what llama-server may take later included
        flags = run_flags(chosen, name_devices=hasattr(args, "device_specs"))
        section = fit_section(
            fit,
            predictor.placed(chosen).placement,
            command=[*_program(args), *_model_flags(args.model), *flags, *_other_flags(args, fit.trial.places)],
            flags=flags,
            helps=suggestions,
            pace=paced.pace,
        )
        found = Inspection(
            gguf=gguf,
            params=chosen,
            prediction=prediction,
            refusals=predictor.refusals,
            notes=(*notes, *more_notes),
            sections=(section, *paces.sections(paced)),
        )
        print(inspect_json(found) if args.json else inspect_text(found))
    return 0 if fit.fits and paced.enough else 1


def _rate(text: str) -> float:
    """`20tok/s`, or a number alone."""
    number = text.lower().removesuffix("tok/s").removesuffix("t/s").strip()
    try:
        rate = float(number)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a speed (expected tokens a second such as 20tok/s)")
    return rate


def _program(args: argparse.Namespace) -> tuple[str]:
    """Who runs a model so: of llama.cpp's programs llama-completion reserves every row of logits."""
    return ("llama-server",) if run_as(args) == "server" else ("llama-completion",)


def _helps(fitter: Fitter) -> "tuple[Help, ...]":
    from ggufphys.plan.fit_help import helps  # when nothing fits alone

    return helps(fitter)


def _params(args: argparse.Namespace) -> tuple[Params, tuple[str, ...]]:
    """What is not chosen, as llama-server would have it, on devices with the memory that is said; and notes."""
    sizes = [] if args.memory is None else [parse_memory(part, "--memory") for part in args.memory.split(",")]
    if sizes and not hasattr(args, "device_specs") and not hasattr(args, "rpc_specs"):
        here = [found.device.name for found in find_devices()]
        names = [*here, *(f"CUDA{i}" for i in range(len(here), len(sizes)))]
        specs = [f"{name}={size}" for name, size in zip(names, sizes, strict=False)]
        # Not in `args`, so that nobody is told names that were made up here.
        params, notes = params_here(argparse.Namespace(**vars(args), device_specs=specs))
        if not here and len(sizes) == 1:
            notes = (f"--memory is what a GPU has; for main memory alone: --ram {args.memory}", *notes)
    else:
        params, notes = params_here(args)
        if sizes and len(sizes) != len(params.devices):
            raise ValueError(f"--memory names {len(sizes)} sizes for {len(params.devices)} devices: one for each")
        pairs = zip(params.devices, sizes or [device.memory_bytes for device in params.devices], strict=True)
        params = replace(params, devices=tuple(replace(d, memory_bytes=size) for d, size in pairs))
    return with_server(args, params), notes


def _budget(args: argparse.Namespace) -> tuple[Budget, tuple[str, ...]]:
    """How much there is; main memory is this machine's unless it or the devices' was said."""
    margins = () if args.margin is None else _margins(args.margin)
    if args.ram is not None:
        return Budget(margins=margins, ram_bytes=parse_memory(args.ram, "--ram")), ()
    if args.on is not None:
        from ggufphys.speed.published import published_machine

        machine = published_machine(args.on)
        if machine.has_gpu:
            return Budget(margins=margins), ("main memory is taken to be enough; --ram says how much there is",)
        margin = margins[0] if margins else default_margin(machine.memory_bytes)
        return Budget(ram_bytes=machine.memory_bytes, ram_margin_bytes=margin), ()
    if args.memory is not None:
        return Budget(margins=margins), ("main memory is taken to be enough; --ram says how much there is",)
    available = host.main_memory().available_bytes
    if not available:
        return Budget(margins=margins), ("how much main memory there is cannot be found out here; --ram says it",)
    note = f"main memory is what this machine has to spare, {format_bytes(available)}; --ram says otherwise"
    margin = margins[0] if margins else default_margin(available)
    return Budget(margins=margins, ram_bytes=available, ram_margin_bytes=margin), (note,)


def _margins(text: str) -> tuple[int, ...]:
    try:
        return tuple(parse_bytes(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--margin: {error}") from None


def _model_flags(model: str) -> tuple[str, str]:
    """The model by llama-server's flags; of the Hub, what its -hf cannot say becomes no more than its name."""
    if model.startswith("hf:"):
        return "-hf", model.removeprefix("hf:")
    return ("-mu", model) if is_remote(model) else ("-m", local_file(model))


def _other_flags(args: argparse.Namespace, places: Sequence[Place]) -> Iterator[str]:
    """What stands beside the model; a prompt cache that main memory has room for; and no second opinion (--fit)."""
    for name, flag in _PASSED_ON.items():
        value = getattr(args, name, None)
        if value is not None:
            yield from (flag, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
    if not getattr(args, "mmproj_offload", True):
        yield "--no-mmproj-offload"
    if overrides := getattr(args, "draft_override_tensor", ()):
        yield from ("-otd", ",".join(f"{pattern}={buffer}" for pattern, buffer in overrides))
    if run_as(args) == "library":
        yield from ("--fit", "off")
        return
    left = next((-place.over_bytes for place in places if place.name == HOST), None)
    cache_ram_mib = getattr(args, "cache_ram_mib", CACHE_RAM_MIB)
    if left is not None and not hasattr(args, "cache_ram_mib"):
        cache_ram_mib = min(cache_ram_mib, max(0, left >> 20))
    if cache_ram_mib != CACHE_RAM_MIB:
        yield from ("-cram", str(cache_ram_mib))
    yield from ("--fit", "off")
