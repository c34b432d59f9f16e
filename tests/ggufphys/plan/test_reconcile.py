"""A log beside its prediction: what agrees, what differs, and what is said about why."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufphys import open_gguf
from ggufphys.builds import LATEST
from ggufphys.cli import main
from ggufphys.gguf import GGMLType
from ggufphys.logs.runs import parse_log
from ggufphys.machine import host
from ggufphys.memory.terms import Basis
from ggufphys.params import Device
from ggufphys.plan.reconcile import Line, reconcile
from tests.ggufphys.models import llama_metadata, llama_tensors, tiny_llama, write_model

# Recorded from llama.cpp 0c1e570 on x86-64 with AVX2 (llama-cpp-python 0.3.36) for `model` below, with n_ctx 1000,
# two sequences, K q8_0, n_ubatch 256, n_outputs_max 4; lines that say nothing about memory are left out.
REPACKED = """
build: 11312 (0c1e570) with GNU 12.2.0 for Linux x86_64
llama_model_loader: loaded meta data with 12 key-value pairs and 20 tensors from /models/tiny.gguf (version GGUF V3)
print_info: arch                  = llama
print_info: no_alloc              = 0
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors:   CPU_Mapped model buffer size =     0.71 MiB
load_tensors:   CPU_REPACK model buffer size =     0.70 MiB
llama_context: constructing llama_context
llama_context: n_seq_max             = 2
llama_context: n_ctx                 = 1024
llama_context: n_ctx_seq             = 512
llama_context: n_batch               = 1000
llama_context: n_ubatch              = 256
llama_context: causal_attn           = 1
llama_context: flash_attn            = auto
llama_context: kv_unified            = false
llama_context: n_outputs_max         = 4
llama_context:        CPU  output buffer size =     0.00 MiB
llama_kv_cache:        CPU KV buffer size =     0.77 MiB
llama_kv_cache: size =    0.77 MiB (   512 cells,   2 layers,  2/2 seqs), K (q8_0):    0.27 MiB, V (f16):    0.50 MiB
sched_reserve:        CPU compute buffer size =     2.27 MiB
sched_reserve: reserve took 1.25 ms, sched copies = 1
"""
# The same file with n_ctx 512, no flash attention, neither mapped nor repacked.
PLAIN = """
build: 11312 (0c1e570) with GNU 12.2.0 for Linux x86_64
llama_model_loader: loaded meta data with 12 key-value pairs and 20 tensors from /models/tiny.gguf (version GGUF V3)
print_info: arch                  = llama
print_info: no_alloc              = 0
load_tensors: loading model tensors, this can take a while... (load_mode = none)
load_tensors:          CPU model buffer size =     0.71 MiB
llama_context: constructing llama_context
llama_context: n_seq_max             = 1
llama_context: n_ctx                 = 512
llama_context: n_batch               = 512
llama_context: n_ubatch              = 512
llama_context: flash_attn            = disabled
llama_context: kv_unified            = false
llama_context: n_outputs_max         = 512
llama_context:        CPU  output buffer size =     0.00 MiB
llama_kv_cache:        CPU KV buffer size =     0.50 MiB
llama_kv_cache: size =    0.50 MiB (   512 cells,   2 layers,  1/1 seqs), K (f16):    0.25 MiB, V (f16):    0.25 MiB
sched_reserve:        CPU compute buffer size =     8.01 MiB
"""


@pytest.fixture(autouse=True)
def _avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU that the logs were recorded on."""
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"avx2"}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A two-layer llama of Q4_0, which AVX2 repacks."""
    return write_model(tmp_path / "tiny.gguf", llama_metadata(), llama_tensors(GGMLType.Q4_0))


class Inspect:
    """`inspect MODEL --log`, from a file."""

    def __init__(self, model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.model, self.log, self.capsys = model, folder / "server.log", capsys

    def json(self, log: str, *flags: str, code: int = 0) -> dict[str, Any]:
        """The document."""
        self.log.write_text(log)
        assert main(["inspect", "--json", str(self.model), "--log", str(self.log), *flags]) == code
        document: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        assert document["reconciled"] is (code != 1)
        return document

    def params(self, log: str, *flags: str) -> dict[str, dict[str, Any]]:
        """The parameters by name, whether or not the buffers agree."""
        self.log.write_text(log)
        main(["inspect", "--json", str(self.model), "--log", str(self.log), *flags])
        params: dict[str, dict[str, Any]] = json.loads(self.capsys.readouterr().out)["params"]
        return params

    def rows(self, log: str, *flags: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """The rows by name."""
        return {row["name"]: row for row in self.json(log, *flags, code=code)["rows"]}

    def error(self, log: str, *flags: str) -> tuple[int, str]:
        """Exit code and message of a call that fails."""
        self.log.write_text(log)
        code = main(["inspect", str(self.model), "--log", str(self.log), *flags])
        return code, self.capsys.readouterr().err


@pytest.fixture
def inspect(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Inspect:
    return Inspect(model, tmp_path, capsys)


@pytest.mark.parametrize(("log", "n_rows"), [(REPACKED, 5), (PLAIN, 4)])
def test_reconciles(inspect: Inspect, log: str, n_rows: int) -> None:
    """Every line that llama.cpp printed agrees with what is predicted for the parameters it printed."""
    rows = inspect.rows(log)

    assert {row["verdict"] for row in rows.values()} == {"equal"}
    assert len(rows) == n_rows
    assert [row["difference"] for row in rows.values()] == [0] * n_rows


def test_parameters_and_their_sources(inspect: Inspect) -> None:
    """Each parameter is said to be the log's, a flag's, concluded or assumed."""
    params = inspect.json(REPACKED, "-ub", "256")["params"]

    assert params["n_ctx"] == {"value": 1024, "source": "log"}
    assert params["type_k"] == {"value": "q8_0", "source": "log"}
    assert params["n_ubatch"] == {"value": 256, "source": "flag"}
    assert params["use_extra_bufts"] == {"value": True, "source": "log (there is a CPU_REPACK or AMX buffer)"}
    assert params["swa_full"] == {"value": False, "source": "assumed (off)"}


def test_flags_override(inspect: Inspect) -> None:
    """A flag takes the place of what the log says; what then differs is put down to that."""
    document = inspect.json(PLAIN, "-c", "1024", code=1)
    rows = {row["name"]: row for row in document["rows"]}

    assert document["params"]["n_ctx"]["source"] == "flag (the log says 512)"
    assert rows["CPU KV"]["predicted"] == 2 * rows["CPU KV"]["logged"]
    assert rows["CPU KV"]["verdict"] == "differs"
    assert rows["CPU KV"]["reason"] == "flags say otherwise than the log: n_ctx"
    assert rows["CPU model"]["verdict"] == "equal"


@pytest.mark.parametrize(
    ("log", "flags"),
    [
        (REPACKED, "-c 0 -np 2"), (REPACKED, "-c 1000 -np 2 -b 4000"), (REPACKED, "-b 2048 -ub 256"),
        (REPACKED, "-no-kvu"), (REPACKED, "--embeddings -b 2048"), (PLAIN, "-c 512 -ub 4096"), (PLAIN, "-ub 512"),
        (REPACKED.replace("kv_unified            = false", "kv_unified            = true"), "-no-kvu"),
    ],
)  # fmt: skip
def test_flags_of_which_the_log_says_what_came_of_them(inspect: Inspect, log: str, flags: str) -> None:
    """The line that was run may stand beside its log: what llama.cpp rounds, clips and chooses contradicts nothing."""
    params = inspect.params(log, *flags.split())

    assert not any("the log says" in parameter["source"] for parameter in params.values())


@pytest.mark.parametrize(("flags", "name"), [("-c 1100", "n_ctx"), ("-b 500", "n_batch"), ("-ub 255", "n_ubatch")])
def test_lengths_that_cannot_have_become_the_logs(inspect: Inspect, flags: str, name: str) -> None:
    """Other lengths are predicted for, and named."""
    params = inspect.params(REPACKED, *flags.split())

    assert "the log says" in params[name]["source"]


def test_devices_have_the_memory_that_the_log_says(model: Path) -> None:
    """Layers are divided by it where no flag says how much there is."""
    (run,) = parse_log(REPACKED.splitlines())
    logged = Device(name="CUDA0", memory_bytes=3 << 30), Device(name="CUDA1", memory_bytes=1 << 30)
    run = replace(run, settings={**run.settings, "devices": logged})
    asked = Device(name="CUDA0"), Device(name="CUDA1", memory_bytes=2 << 30)
    with open_gguf(model) as gguf:
        params = reconcile(gguf, [run], {"devices": asked}).params

    assert params.devices == (logged[0], asked[1])


@pytest.mark.parametrize(
    ("old", "new", "row", "reason"),
    [
        ("KV buffer size =     0.77", "KV buffer size =     0.78", "CPU KV", ""),
        ("CPU compute buffer size =     2.27", "CPU compute buffer size =     2.20", "CPU compute", ""),
        ("CPU_REPACK model buffer size =     0.70", "CPU_REPACK model buffer size =     0.60", "CPU_REPACK model",
         "which weights are repacked depends on the CPU: another machine's log?"),
    ],
)  # fmt: skip
def test_differences(inspect: Inspect, old: str, new: str, row: str, reason: str) -> None:
    """A line that differs by more than its rounding is exit code 1, with the reason where one is known."""
    assert old in REPACKED
    rows = inspect.rows(REPACKED.replace(old, new), code=1)

    assert (rows[row]["verdict"], rows[row]["reason"]) == ("differs", reason)
    assert [r["verdict"] for name, r in rows.items() if name != row] == ["equal"] * 4


def test_rounding(inspect: Inspect) -> None:
    """A difference within the log's last digit is none: the cache of 802,816 bytes is printed as 0.77 MiB."""
    row = inspect.rows(REPACKED)["CPU KV"]

    assert row["predicted"] == 802816
    assert row["predicted"] != row["logged"] == round(0.77 * 1024**2)
    assert row["difference"] == 0


def test_repacking_denied(inspect: Inspect) -> None:
    """A repacked buffer in the log of a run that is said to have none is not predicted, and called a contradiction."""
    rows = inspect.rows(REPACKED, "--no-repack")

    assert rows["CPU_REPACK model"]["verdict"] == "not predicted"
    assert rows["CPU_REPACK model"]["reason"] == "it ran with repacked weights, and --no-repack says it did not"


def test_silent_log(inspect: Inspect) -> None:
    """What the log is silent about is not logged, and no failure."""
    rows = inspect.rows(REPACKED[: REPACKED.index("llama_kv_cache:")])

    assert rows["CPU context"]["verdict"] == rows["CPU compute"]["verdict"] == "not logged"
    assert rows["CPU_Mapped model"]["verdict"] == "equal"


def test_buffer_that_is_not_there(inspect: Inspect) -> None:
    """A buffer that is predicted and missing among its like in the log differs."""
    log = PLAIN.replace("CPU model buffer", "CPU_Mapped model buffer")
    rows = inspect.rows(log, code=1)

    assert (rows["CPU model"]["logged"], rows["CPU model"]["verdict"]) == (0, "differs")
    assert rows["CPU_Mapped model"]["verdict"] == "not predicted"


def test_attachments_and_strange_devices(inspect: Inspect) -> None:
    """Buffers of adapters and of devices nobody knows are marked, not failed."""
    rows = inspect.rows(
        PLAIN
        + "llama_adapter_lora_init_impl:        CPU LoRA buffer size =     2.00 MiB\n"
        + "sched_reserve:      Orange7 compute buffer size =     8.01 MiB\n"
    )

    assert (rows["CPU LoRA"]["verdict"], rows["CPU LoRA"]["reason"]) == (
        "not predicted", "an attachment that was not named here",
    )  # fmt: skip
    assert rows["Orange7 compute"]["reason"] == "buffers of this device are not modelled yet"


def test_several_contexts(inspect: Inspect) -> None:
    """Of several loads the last of this model counts; drafts and probes are left aside and named."""
    probe = PLAIN.replace("no_alloc              = 0", "no_alloc              = 1")
    draft = PLAIN.replace("20 tensors", "5 tensors").replace("tiny.gguf", "draft.gguf")
    document = inspect.json(REPACKED + probe + PLAIN + draft)

    assert document["params"]["n_ctx"]["value"] == 512
    assert document["notes"] == [
        "not compared: 2 more contexts in the log, of tiny.gguf (llama, 20 tensors), draft.gguf (llama, 5 tensors)"
    ]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "run llama-server or llama-cli with -lv 4"),
        ("srv  load_model: loading model\n", "run llama-server or llama-cli with -lv 4"),
        (PLAIN.replace("20 tensors", "21 tensors"), "another model: tiny.gguf (llama, 21 tensors); expected llama"),
        (PLAIN.replace("= llama", "= qwen2"), "another model: tiny.gguf (qwen2, 20 tensors); expected llama"),
    ],
)
def test_useless_logs(inspect: Inspect, log: str, message: str) -> None:
    """A log without buffer lines, or of another model, is a usage error that says what to do."""
    code, err = inspect.error(log)

    assert code == 2
    assert message in err


def test_no_log(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log that is not there is named; two questions at once, or several models, are usage errors."""
    assert main(["inspect", str(model), "--log", "gone.log"]) == 3
    assert "gone.log: No such file" in capsys.readouterr().err
    for arguments in ([str(model), "--assert-fits", "1G"], [str(model), str(model)]):
        assert main(["inspect", *arguments, "--log", "gone.log"]) == 2


def test_unknown_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an architecture without a rule the weights are compared, and the exit code is 4."""
    model = write_model(tmp_path / "new.gguf", llama_metadata("llama9"), llama_tensors(GGMLType.Q4_0))
    inspect = Inspect(model, tmp_path, capsys)
    rows = inspect.rows(PLAIN.replace("= llama\n", "= llama9\n"), code=4)

    assert rows["CPU model"]["verdict"] == "equal"
    assert (rows["CPU KV"]["verdict"], rows["CPU KV"]["reason"]) == (
        "not predicted", "no rule for this architecture yet",
    )  # fmt: skip


def test_text_from_stdin(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The text report has a line a buffer, what the parameters are taken from, and a verdict; - is stdin."""
    log = REPACKED.replace("build: 11312 (0c1e570)", "build: 0 (unknown)")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log.encode())))
    assert main(["inspect", str(model), "--log", "-", "--llama-build", "pinned"]) == 0
    out = capsys.readouterr().out

    assert "log: n_ctx 1024, n_batch 1000, n_ubatch 256" in out
    assert "use_extra_bufts on (there is a CPU_REPACK or AMX buffer)" in out
    assert "assumed: swa_full off" in out
    assert "CPU_REPACK model           0.70        0.70        0.00  exact  equal" in out
    assert "reconciled: 5 equal" in out
    assert out.splitlines()[-1] == (
        "note: the log's build, 0 (unknown), is none that is known: predicted for llama.cpp b11312"
    )


def test_a_build_that_fits_is_found(inspect: Inspect) -> None:
    """A log that names no build is compared with the newest recorded one whose figures fit, or with the newest."""
    log = PLAIN.replace("build: 11312 (0c1e570)", "build: 1 (unknown)")
    assert log != PLAIN
    document = inspect.json(log)
    assert document["params"]["llama_build"]["value"] == 11391  # mixed batches take more from b11401 on
    assert "of those recorded b8233 to b11391 fit" in document["notes"][-1]

    document = inspect.json(log.replace("8.01 MiB", "8.99 MiB"), code=1)
    assert document["params"]["llama_build"]["value"] == LATEST
    assert "none of the recorded builds fits" in document["notes"][-1]


@pytest.mark.parametrize(("basis", "holds"), [("exact", False), ("estimate", True)])
def test_estimates_do_not_fail(model: Path, basis: Basis, holds: bool) -> None:
    """A figure that is called an estimate may differ; one that is called exact may not."""
    with open_gguf(model) as gguf:
        result = reconcile(gguf, parse_log(PLAIN.splitlines()), {})
    line = Line(
        quantity="compute", name="CPU compute", predicted=1 << 20, logged=1 << 30, resolution_bytes=1, basis=basis
    )

    assert result.holds
    assert line.verdict == "differs"
    assert replace(result, lines=(*result.lines, line)).holds is holds


def test_other_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of the same shape and another type does not pass for the one that was run."""
    rows = Inspect(tiny_llama(tmp_path / "f16.gguf"), tmp_path, capsys).rows(PLAIN, code=1)

    assert rows["CPU model"]["verdict"] == "differs"
