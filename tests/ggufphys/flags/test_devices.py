"""llama.cpp's flags for devices become the fields of Params that they mean."""

import argparse

import pytest

from ggufphys import Device, Params
from ggufphys.flags.draft import add_draft_arguments, draft_fields
from ggufphys.flags.run import add_run_arguments, params_from

HERE = (Device(name="CUDA0", memory_bytes=24 << 30), Device(name="CUDA1", memory_bytes=8 << 30))
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_ARG_DEVICE", raising=False)


def parse(line: str, here: tuple[Device, ...] | None = None) -> Params:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_run_arguments(parser)
    args = parser.parse_args(line.split())
    return params_from(args) if here is None else params_from(args, found=lambda: here)


def names(params: Params) -> list[str]:
    return [device.name for device in params.devices]


def test_a_llama_server_line() -> None:
    """A whole line of llama-server's own flags, short names."""
    params = parse(
        "-ngl 99 -sm none -ts 3,1 -mg 1 -nkvo -ot blk\\.1\\.=CPU,exps=CUDA1 -ncmoe 4 --no-op-offload --no-host", HERE
    )

    assert params == Params(
        n_gpu_layers=99,
        split_mode="none",
        tensor_split=(3.0, 1.0),
        main_gpu=1,
        offload_kqv=False,
        op_offload=False,
        override_tensor=((r"blk\.1\.", "CPU"), ("exps", "CUDA1")),
        n_cpu_moe=4,
        no_host=True,
        devices=HERE,
    )


def test_a_drafts_own() -> None:
    """A draft's flags are its own: of the model's nothing is changed by them, nor of them by the model's."""
    parser = argparse.ArgumentParser(exit_on_error=False, argument_default=argparse.SUPPRESS)
    add_run_arguments(parser)
    add_draft_arguments(parser.add_argument_group("draft"))
    model = "-ncmoe 4 --rpc h:1"
    line = f"{model} -ncmoed 2 -otd a=CUDA1 -cmoed -devd CUDA1 -ngld 3 -ctkd q8_0 -md x.gguf --spec-draft-n-max 5"
    args = parser.parse_args(line.split())

    assert params_from(args, found=lambda: HERE).n_cpu_moe == 4
    assert draft_fields(args, lambda: HERE) == {
        "devices": HERE[1:], "n_gpu_layers": 3, "type_k": "q8_0", "n_max": 5, "n_cpu_moe": 0,
        "override_tensor": ((r"blk\.(0|1)" + EXPERTS, "CPU"), ("a", "CUDA1"), (EXPERTS, "CPU")),
    }  # fmt: skip
    none = parser.parse_args(["-devd", "none"])
    assert draft_fields(none, lambda: HERE) == {"devices": ()}


def test_long_names() -> None:
    """The same flags by their long names."""
    params = parse("--n-gpu-layers all --split-mode layer --tensor-split 3/1 --kv-offload --n-cpu-moe 2")

    assert params == Params(n_gpu_layers=-1, tensor_split=(3.0, 1.0), n_cpu_moe=2)
    assert parse("--gpu-layers auto") == Params()
    assert parse("-ngl -1") == Params()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ["CUDA0", "CUDA1"]),
        ("--device none", []),
        ("--device auto", ["CUDA0", "CUDA1"]),
        ("--device CUDA1", ["CUDA1"]),
        ("-dev CUDA0=4GiB,CUDA5=1GiB --device MTL0=8GiB", ["CUDA0", "CUDA5", "MTL0"]),
        ("--rpc a:1,b:2", ["RPC0[a:1]", "RPC0[b:2]", "CUDA0", "CUDA1"]),
        ("--rpc a:1,b:2 --device CUDA0=1GiB", ["RPC0[a:1]", "RPC0[b:2]", "CUDA0"]),
        ("--device CUDA0=1GiB,RPC1,RPC0=2GiB --rpc a:1,b:2", ["CUDA0", "RPC0[b:2]", "RPC0[a:1]"]),
        ("--device RPC1[c:3]=2GiB", ["RPC1[c:3]"]),
    ],
)
def test_devices(line: str, expected: list[str]) -> None:
    """Named devices, RPC servers in front unless they are named too, this machine's when nothing is named."""
    assert names(parse(line, HERE)) == expected


def test_memory_of_devices() -> None:
    """A size that is given counts; one left out is what the machine says, or unknown."""
    params = parse("--device CUDA0=4GiB,CUDA1,CUDA2 --rpc a:1=2GiB", HERE)

    assert [device.memory_bytes >> 30 for device in params.devices] == [2, 4, 8, 0]


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLAMA_ARG_DEVICE, llama.cpp's own variable, stands in for --device and gives way to it."""
    monkeypatch.setenv("LLAMA_ARG_DEVICE", "none")

    assert names(parse("", HERE)) == []
    assert names(parse("--device CUDA1", HERE)) == ["CUDA1"]


def test_without_a_machine() -> None:
    """Whoever does not ask for the machine's devices gets none of them."""
    assert names(parse("-ngl 99")) == []


@pytest.mark.parametrize(
    ("line", "override_tensor", "n_cpu_moe"),
    [
        ("-cmoe", ((EXPERTS, "CPU"),), 0),
        ("-ot a=CPU -ncmoe 3", (("a", "CPU"),), 3),
        ("-ncmoe 2 -ot a=CPU", ((rf"blk\.(0|1){EXPERTS}", "CPU"), ("a", "CPU")), 0),
        ("-ot a=CPU --cpu-moe -ot b=CPU", (("a", "CPU"), (EXPERTS, "CPU"), ("b", "CPU")), 0),
        ("--n-cpu-ffn 2", ((r"blk\.(0|1)\.ffn_(up|down|gate)\.", "CPU"),), 0),
        ("-ncffn 0", (), 0),
    ],
)
def test_order_of_overrides(line: str, override_tensor: tuple[tuple[str, str], ...], n_cpu_moe: int) -> None:
    """The first match counts, so the order of the flags is kept."""
    params = parse(line)

    assert (override_tensor, n_cpu_moe) == (params.override_tensor, params.n_cpu_moe)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-ngl many", "'many' is not a number of layers"),
        ("-ts 3,x", "'3,x': expected proportions"),
        ("-sm diagonal", "invalid choice: 'diagonal'"),
        ("-ot experts", "'experts': expected pattern=buffer"),
        ("-ot experts=CUDA7", "unknown buffer type 'CUDA7', expected one of CPU, CUDA0, CUDA1"),
        ("-ot exp(=CPU", "'exp\\(' is not a regular expression"),
        ("--device CUDA0=lots", "not a size: 'lots'"),
        ("--device CUDA0=1GiB,CUDA0=2GiB", "each may be named once"),
        ("--rpc somewhere", "--rpc somewhere: expected host:port"),
        ("-ncmoe -3", "not a number of layers|expected one argument"),
        ("-sm none -mg 2", "main_gpu is 2, expected less than the number of devices, 2"),
    ],
)
def test_refused(line: str, message: str) -> None:
    """What llama.cpp would refuse is refused with its reason."""
    with pytest.raises((ValueError, argparse.ArgumentError), match=message):
        parse(line, HERE)
