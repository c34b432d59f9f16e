"""Reading llama.cpp's logs: whoever wrote them, whatever stands before a line, however many contexts there are."""

import io
import json
from typing import Any

import pytest

from ggufphys.logs.lines import bare_line, log_lines, logged_buffers, logged_bytes
from ggufphys.logs.runs import LoggedRun, parse_log
from ggufphys.params import Device

MIB = 1 << 20
LOG = """
common_params_print_info: build 9876 (0c1e570) with cc (GCC) 14.2 for Linux x86_64
llama_model_loader: loaded meta data with 34 key-value pairs and 56 tensors from /models/a b.gguf (version GGUF V3)
llama_model_loader: - kv   3:                          llama.context_length u32              = 1024
print_info: arch                  = llama
print_info: no_alloc              = 0
print_info: n_ctx_train           = 1024
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors:   CPU_Mapped model buffer size =  2488.71 MiB
load_tensors:   CPU_REPACK model buffer size =  1195.31 MiB
........................llama_context: constructing llama_context
llama_context: n_seq_max             = 4
llama_context: n_ctx                 = 8192
llama_context: n_ctx_seq             = 2048
llama_context: n_batch               = 2048
llama_context: n_ubatch              = 256
llama_context: causal_attn           = 1
llama_context: flash_attn            = enabled
llama_context: kv_unified            = true
llama_context: n_outputs_max         = 4
llama_context: n_ctx_seq (2048) < n_ctx_train (4096) -- the full capacity of the model will not be utilized
llama_context:        CPU  output buffer size =     0.98 MiB
llama_kv_cache_iswa: using full-size SWA cache (ref: https://github.com/ggml-org/llama.cpp/pull/13194)
llama_kv_cache:        CPU KV buffer size =   224.00 MiB
llama_kv_cache: size =  224.00 MiB (  8192 cells,  28 layers,  4/1 seqs), K (q8_0):  112.00 MiB, V (f16):  112.00 MiB
llama_memory_recurrent:        CPU RS buffer size =   163.02 MiB
llama_dsv4_comp_state:        CPU DSV4 csa state buffer size =     1.50 MiB
sched_reserve:        CPU compute buffer size =   517.00 MiB
sched_reserve: reserve took 6.24 ms, sched copies = 1
llama_adapter_lora_init_impl:        CPU LoRA buffer size =     2.00 MiB
reserve_compute_meta:        CPU compute buffer size =    25.12 MiB
srv    load_model: initializing, n_slots = 4, n_ctx_slot = 2048, kv_unified = 'true'
~llama_context:        CPU compute buffer size is 517.0000 MiB, matches expectation of 517.0000 MiB
"""
SETTINGS = {
    "n_seq_max": 4, "n_ctx": 8192, "n_batch": 2048, "n_ubatch": 256, "flash_attn": "on", "kv_unified": True,
    "n_outputs_max": 4, "swa_full": True, "type_k": "q8_0", "type_v": "f16", "use_mmap": True, "use_extra_bufts": True,
}  # fmt: skip
PREFIXES = [
    "",
    "0.00.035.064 I ",
    "\x1b[34m0.00.035.064\x1b[0m \x1b[32mI \x1b[0m",
    "Nov 21 01:16:15 host llama-server[1884]: ",
    "2026-11-21T01:16:15.123456Z stdout F ",
    "srv  ",
    "llama-server-1  | ",
]


def test_buffer_lines() -> None:
    """Each buffer line of llama.cpp's log is read, and sums keep their precision."""
    buffers = logged_buffers(LOG.splitlines())

    assert [(b.quantity, b.buffer, b.what) for b in buffers] == [
        ("model", "CPU_Mapped", "model"),
        ("model", "CPU_REPACK", "model"),
        ("output", "CPU", "output"),
        ("context", "CPU", "KV"),
        ("context", "CPU", "RS"),
        ("context", "CPU", "DSV4 csa state"),
        ("compute", "CPU", "compute"),
        ("attachment", "CPU", "LoRA"),
        ("attachment", "CPU", "mmproj compute"),
    ]
    assert logged_bytes(buffers, "context") == (round(388.52 * MIB), round(3 * 0.005 * MIB))
    assert logged_bytes((), "model") is None


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("json_lines", [False, True])
def test_prefixes(prefix: str, json_lines: bool) -> None:
    """What stands before a line, colours and JSON around it make no difference."""
    lines = [prefix + line for line in LOG.splitlines()]
    if json_lines:
        lines = [json.dumps({"type": "log", "time": 1, "level": "info", "msg": f"{line}\n"}) for line in lines]
    (run,) = parse_log(map(bare_line, lines))

    assert run.settings == SETTINGS
    assert run.buffers == logged_buffers(LOG.splitlines())
    assert (run.path, run.n_tensors, run.architecture, run.allocated) == ("/models/a b.gguf", 56, "llama", True)
    assert (run.build, run.remarks) == ("9876 (0c1e570)", ())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings(encoding: str, end: str) -> None:
    """Logs of any terminal and of PowerShell are read, whatever other bytes are in them."""
    text = LOG.replace("\n", end) + f"tokens: é ü{end}"
    (run,) = parse_log(log_lines(io.BytesIO(text.encode(encoding))))

    assert run.settings == SETTINGS
    assert len(run.buffers) == 9
    assert parse_log(log_lines(io.BytesIO(b""))) == ()


OLD = """
llm_load_print_meta: arch             = llama
llm_load_tensors:        CPU model buffer size =  4096.00 MiB
llama_new_context_with_model: n_ctx      = 4096
llama_new_context_with_model: n_batch    = 512
llama_new_context_with_model: flash_attn = 1
llama_kv_cache_init:        CPU KV buffer size =   512.00 MiB
llama_new_context_with_model: KV self size  =  512.00 MiB, K (q4_0):  256.00 MiB, V (q4_0):  256.00 MiB
llama_new_context_with_model: n_ctx      = 512
llama_kv_cache_init:        CPU KV buffer size =    64.00 MiB
"""


def test_older_versions() -> None:
    """Older functions' names are known, and a repeated parameter begins another context of the same model."""
    first, second = parse_log(OLD.splitlines())

    assert (first.settings["n_ctx"], first.settings["flash_attn"], first.settings["type_v"]) == (4096, "on", "q4_0")
    assert (second.settings["n_ctx"], "type_v" in second.settings) == (512, False)
    assert [[b.mib for b in run.buffers] for run in (first, second)] == [[4096, 512], [4096, 64]]
    assert (first.load, first.n_tensors) == (second.load, None)
    assert (first.settings["use_mmap"], first.concluded["use_mmap"]) == (False, "there is no mapped buffer")


def test_several_models() -> None:
    """A model that is tried out without allocating, the real one, and a draft model are runs of their own."""
    probe = LOG.replace("no_alloc              = 0", "no_alloc              = 1").replace("8192", "4096")
    draft = LOG.replace("56 tensors", "20 tensors").replace("a b.gguf", "draft.gguf")
    runs = parse_log((probe + LOG + draft).splitlines())

    assert [(r.allocated, r.settings["n_ctx"], r.n_tensors) for r in runs] == [
        (False, 4096, 56), (True, 8192, 56), (True, 8192, 20),
    ]  # fmt: skip
    assert len({run.load for run in runs}) == 3


@pytest.mark.parametrize(
    ("logged", "settings"),
    [
        ("load_mode = dio", {"use_mmap": False, "use_direct_io": True}),
        ("load_mode = mmap+mlock", {"use_mmap": True, "use_mlock": True}),
        ("mmap = false", {"use_mmap": False}),
    ],
)
def test_load_modes(logged: str, settings: dict[str, bool]) -> None:
    """How weights were loaded is read from the log, of older versions too; an AMX buffer tells of AMX kernels."""
    (run,) = parse_log(LOG.replace("load_mode = mmap", logged).replace("CPU_REPACK", "AMX").splitlines())
    names = ("use_mmap", "use_mlock", "use_direct_io")

    assert {name: run.settings[name] for name in names if name in run.settings} == settings
    assert (run.settings["use_amx"], run.settings["use_extra_bufts"]) == (True, True)


def test_load_that_failed() -> None:
    """A log that ends before a context was created tells of the weights."""
    (run,) = parse_log(LOG[: LOG.index("llama_context: constructing")].splitlines())

    assert [b.buffer for b in run.buffers] == ["CPU_Mapped", "CPU_REPACK"]
    assert run.settings == {"use_mmap": True, "use_extra_bufts": True}


DEVICES = """
llama_prepare_model_devices: using device CUDA0 (NVIDIA RTX 4090) (0000:01:00.0) - 23000 MiB free
llama_prepare_model_devices: using device RPC0 (10.0.0.2:50052) (unknown id) - 1000 MiB free
llama_prepare_model_devices: using device RPC1 (10.0.0.3:50052) (unknown id) - 500 MiB free
load_tensors: loading model tensors, this can take a while... (load_mode = none)
tensor blk.3.ffn_up_exps.weight (26 MiB q4_K) buffer type overridden to CPU
load_tensors: offloaded 33/33 layers to GPU
load_tensors:        CUDA0 model buffer size =   100.00 MiB
load_tensors: RPC0[10.0.0.2:50052] model buffer size =     4.51 MiB
load_tensors: RPC0[10.0.0.3:50052] model buffer size =     3.50 MiB
llama_context: n_ctx                 = 8192
llama_kv_cache:        CPU KV buffer size =   224.00 MiB
sched_reserve: reserve took 6.24 ms, sched copies = 4
~llama_context:      CUDA0 compute buffer size of 600.0000 MiB, does not match expectation of 517.0000 MiB
"""


def without(run: LoggedRun, *names: str) -> dict[str, Any]:
    """Settings less some."""
    return {name: value for name, value in run.settings.items() if name not in names}


def test_devices() -> None:
    """Devices are named after their buffers; what is not on them, and what explains differences, is found."""
    (run,) = parse_log(DEVICES.splitlines())

    assert run.settings["devices"] == (
        Device(name="CUDA0", memory_bytes=23000 * MIB),
        Device(name="RPC0[10.0.0.2:50052]", memory_bytes=1000 * MIB),
        Device(name="RPC0[10.0.0.3:50052]", memory_bytes=500 * MIB),
    )
    assert run.settings["override_tensor"] == ((r"^blk\.3\.ffn_up_exps\.weight$", "CPU"),)
    assert without(run, "devices", "override_tensor") == {
        "use_mmap": False, "n_gpu_layers": 33, "n_ctx": 8192, "use_extra_bufts": False, "offload_kqv": False,
    }  # fmt: skip
    assert set(run.concluded) == {"use_extra_bufts", "offload_kqv"}
    assert run.remarks == (
        "the CUDA0 compute buffer grew to 600.0000 MiB while it ran",
        "pipeline parallelism keeps 4 copies of a graph's inputs",
    )


def test_nonsense() -> None:
    """Lines that look like parameters and are not do no harm."""
    lines = [
        "llama_context: n_ctx = many",
        "llama_context: flash_attn = perhaps",
        "main: n_ctx = 3",
        "x: K (strange): 1 MiB, V (types): 2 MiB",
        "buffer size = 3 MiB",
        '{"msg": 3}',
        '{"msg"',
        "[]",
        "a" * 100_000,
    ]

    assert parse_log(map(bare_line, lines)) == ()


@pytest.mark.parametrize("number", ["0.5.0", "...", "9" * 400, "1e3", "-1.00"])
def test_numbers_that_are_none(number: str) -> None:
    """A line whose number nobody can read, as a torn log has it, is about something else: no error, and no infinity."""
    good = "llama_kv_cache:        CPU KV buffer size =     0.50 MiB"
    assert [buffer.mib for buffer in logged_buffers([good, good.replace("0.50", number)])] == [0.5]


def test_counts_without_end() -> None:
    """Counts that no run has are none that a log says."""
    torn = "llama_model_loader: loaded meta data with 3 key-value pairs and {n} tensors from m.gguf (version GGUF V3)"
    kept = "load_tensors:   CPU_Mapped model buffer size =     2.56 MiB"
    (run,) = parse_log([torn.format(n="9" * 5000), kept])
    assert (run.n_tensors, run.path) == (None, "")
