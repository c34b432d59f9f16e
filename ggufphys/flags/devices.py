"""llama.cpp's flags about devices: which there are, what goes where. Parsed into fields of `Params` like the others.

`--device` also takes a size, `CUDA0=24GiB`, so that a machine can be asked about that is not there.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init, parse_device_list, add_rpc_devices,
parse_tensor_buffer_overrides; common/common.h, llm_ffn_exps_cpu_override, llm_add_n_cpu_ffn_overrides.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, get_args

from ggufphys.flags.numbers import integer
from ggufphys.params import CPU_BUFFER, Device, SplitMode, rpc_device
from ggufphys.units import parse_memory

MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
MAX_PORT: Final = 65535

AUTO: Final = "auto"
NONE: Final = "none"
ENVIRONMENT: Final = "LLAMA_ARG_DEVICE"  # llama.cpp's variable for --device
EXPERTS: Final = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
_DENSE: Final = r"\.ffn_(up|down|gate)\."


def add_device_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the flags; `device_fields` reads what they leave behind."""
    group.add_argument(
        "-dev", "--device", dest="device_specs", action=Append, metavar="NAME[=SIZE],...",
        help="devices to offload to, with their free memory (CUDA0=24GiB; repeatable); none; auto: those found here",
    )  # fmt: skip
    group.add_argument(
        "--rpc", dest="rpc_specs", action=Append, metavar="HOST:PORT[=SIZE],...",
        help="RPC servers, one device each, in front of other devices",
    )  # fmt: skip
    group.add_argument(
        "-ngl", "--gpu-layers", "--n-gpu-layers", dest="n_gpu_layers", type=layers_to_offload, metavar="N",
        help="layers to offload, counted from the output (auto, all, or a number; default all, given a device)",
    )  # fmt: skip
    group.add_argument(
        "-sm", "--split-mode", choices=get_args(SplitMode),
        help="how several devices share: none uses --main-gpu alone (default layer)",
    )  # fmt: skip
    group.add_argument(
        "-ts", "--tensor-split", type=_proportions, metavar="N0,N1,...",
        help="proportions of the layers (default: by the devices' memory)",
    )  # fmt: skip
    group.add_argument(
        "-mg", "--main-gpu", type=integer, metavar="INDEX", help="the device of split mode none (default 0)"
    )
    group.add_argument(
        "-kvo", "--kv-offload", dest="offload_kqv", action="store_true", help="the KV cache with its layers (default)"
    )
    group.add_argument(
        "-nkvo", "--no-kv-offload", dest="offload_kqv", action="store_false", help="the KV cache on the host"
    )
    group.add_argument(
        "-ot", "--override-tensor", dest="override_tensor", action=Override, parse=overrides,
        metavar="PATTERN=BUFFER,...", help="put tensors whose names match into CPU or a device's buffer",
    )  # fmt: skip
    group.add_argument(
        "-cmoe", "--cpu-moe", dest="override_tensor", action=Override, nargs=0,
        parse=lambda _: ((EXPERTS, CPU_BUFFER),), help="all experts on the CPU",
    )  # fmt: skip
    group.add_argument(
        "-ncmoe", "--n-cpu-moe", dest="n_cpu_moe", type=n_layers, metavar="N",
        help="the experts of the first N layers on the CPU",
    )  # fmt: skip
    group.add_argument(
        "-ncffn", "--n-cpu-ffn", dest="override_tensor", action=Override, parse=lambda n: first_layers(n, _DENSE),
        type=n_layers, metavar="N", help="the dense feed-forward weights of the first N layers on the CPU",
    )  # fmt: skip
    group.add_argument(
        "--op-offload",
        dest="op_offload",
        action="store_true",
        help="large batches run where weights are fetched to (default)",
    )
    group.add_argument(
        "--no-op-offload", dest="op_offload", action="store_false", help="weights of the host are never fetched"
    )
    group.add_argument("--no-host", action="store_true", help="no pinned host buffers beside devices")


def device_fields(args: argparse.Namespace, found: Callable[[], Sequence[Device]]) -> dict[str, Any]:
    """`devices`, when flags or the environment name some: sizes that they leave out are those `found` on this machine.

    Raises:
        ValueError: a size that is none.
    """
    specs: list[str] = getattr(args, "device_specs", None) or os.environ.get(ENVIRONMENT, "").split(",")
    specs = [spec for spec in specs if spec]
    servers = tuple(_rpc(spec) for spec in getattr(args, "rpc_specs", ()))
    if NONE in specs:
        if len(specs) > 1:
            raise ValueError(f"--device {','.join(specs)}: {NONE} is no device, so it stands alone")
        return {"devices": ()}
    if not specs and not servers:
        return {}
    if not specs or AUTO in specs:
        return {"devices": (*servers, *found())}
    here = {device.name: device for device in found()} if any("=" not in spec for spec in specs) else {}
    devices = tuple(_device(spec, servers, here) for spec in specs)
    named = any(device.name.startswith("RPC") for device in devices)
    return {"devices": devices if named else (*servers, *devices)}


def first_layers(n_layer: int, ffn: str) -> tuple[tuple[str, str], ...]:
    """An override that keeps a part of the first layers' feed-forward weights on the CPU."""
    numbers = "|".join(map(str, range(min(n_layer, MAX_LAYERS))))
    return ((rf"blk\.({numbers}){ffn}", CPU_BUFFER),) if n_layer else ()


def _device(spec: str, servers: Sequence[Device], here: Mapping[str, Device]) -> Device:
    name, equals, size = spec.rpartition("=") if "=" in spec else (spec, "", "")
    match = re.fullmatch(r"RPC(\d+)", name)  # llama.cpp numbers the servers' devices in the order of --rpc
    if match is not None and int(match[1]) < len(servers):
        name = servers[int(match[1])].name
    if equals:
        return Device(name=name, memory_bytes=parse_memory(size, f"--device {name}"))
    return here.get(name) or next((s for s in servers if s.name == name), Device(name=name))


def _rpc(spec: str) -> Device:
    endpoint, equals, size = spec.partition("=")
    match = re.fullmatch(r".+:([0-9]+)", endpoint)
    if match is None or not 0 < int(match[1]) <= MAX_PORT:
        raise ValueError(f"--rpc {spec}: expected host:port (1 to {MAX_PORT}), or host:port=size")
    return rpc_device(endpoint, parse_memory(size, f"--rpc {endpoint}") if equals else 0)


class Append(argparse.Action):
    """Collect comma-separated values of every occurrence."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add a flag's values."""
        added = [*filter(None, values.split(","))]
        if not added:  # as an unset variable of the shell leaves it
            raise argparse.ArgumentError(self, f"{values!r} names nothing, expected {self.metavar}")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, ()), *added])


class Override(argparse.Action):
    """Collect overrides in the order in which flags give them, since the first match counts.

    `--n-cpu-moe` comes after them in `Params`; where it stood before, it is written out as a pattern.
    """

    def __init__(
        self, *, parse: Callable[[Any], Sequence[tuple[str, str]]], counted: str = "n_cpu_moe", **options: Any
    ) -> None:
        super().__init__(**options)
        self.parse = parse
        self.counted = counted  # where the number of layers is

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add a flag's overrides."""
        try:
            added = self.parse(values)
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        earlier = first_layers(getattr(namespace, self.counted, 0), EXPERTS)
        if earlier:
            setattr(namespace, self.counted, 0)
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), *earlier, *added))


def overrides(text: str) -> tuple[tuple[str, str], ...]:
    """Patterns and buffers. Raises ValueError."""
    pairs = tuple(pair.partition("=")[::2] for pair in text.split(","))
    if not all(pattern and buffer for pattern, buffer in pairs):
        raise ValueError(f"{text!r}: expected pattern=buffer, several separated by commas")
    return pairs


def layers_to_offload(text: str) -> int:
    """A number of layers, -1 for all."""
    if text in ("auto", "all"):
        return -1
    try:
        return max(integer(text), -1)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of layers (or auto, or all)") from None


def _proportions(text: str) -> tuple[float, ...]:
    try:
        if not text.isascii() or "_" in text:  # which Python takes for digits
            raise ValueError
        return tuple(float(part) for part in re.split("[,/]+", text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected proportions such as 3,1") from None


def n_layers(text: str) -> int:
    """A number of layers."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of layers")
    return int(text)
