"""What does a llama.cpp log say was run? The parameters of each context, beside the sizes of its buffers.

A log of llama-server, llama-cli or the library may tell of several contexts: those that are tried out without
allocating, a draft model's, one created anew; each is a `LoggedRun`. Older versions name their functions otherwise and
say less.

Source: llama.cpp 0c1e570 src/llama-context.cpp, llama_context ctor, sched_reserve; src/llama-model.cpp, load_tensors,
print_info; src/llama-model-loader.cpp, llama_model_loader ctor, create_tensor; src/llama-kv-cache.cpp; src/llama.cpp,
llama_prepare_model_devices; common/common.cpp, common_params_print_info.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from ggufphys.builds.said import build_said
from ggufphys.frozen import dataclass, replace
from ggufphys.logs.lines import MIB, LoggedBuffer, buffer_line
from ggufphys.params import CACHE_TYPES, LOAD_MODES, Device

# Logs of servers are long; most lines are of requests and have none of these words.
_WORTH_A_LOOK: Final = re.compile(
    "buffer size|llama_context|llama_init_from|llama_new_context|print_info|print_meta|loaded meta data|sched copies|"
    "size = |SWA cache|Flash Attention|load_mode|mmap = |using device|offloaded|buffer type overrid|build|version:|"
    "system_fingerprint|llama-cpp/"
)
_LOADED: Final = re.compile(r"loaded meta data with \d+ key-value pairs and (\d{1,9}) tensors from (.+) \(version ")
_SETTING: Final = re.compile(
    r"(?:llama_context|llama_init_from_model|llama_new_context_with_model|print_info|llm_load_print_meta):"
    r"\s+(\w+)\s+= (\S+)\s*$"
)
_CACHE: Final = re.compile(r"K \((\w+)\):.*V \((\w+)\):")
_STREAMS: Final = re.compile(r"cells, +\d+ layers, +(\d+)/ *(\d+) seqs\)")
_DEVICE: Final = re.compile(r"using device (\S+) \(([^)]*)\).* - (\d{1,12}) MiB free")
_OFFLOADED: Final = re.compile(r"offloaded (\d{1,9})/(\d+) layers to GPU")
_LOAD_MODE: Final = re.compile(r"\((?:load_mode|mmap) = ([\w+]+)\)")
_OVERRIDE: Final = re.compile(r"tensor (\S+) \(.*\) buffer type overrid?den to (\S+)")
_GREW: Final = re.compile(r"(\S+) compute buffer size of +([0-9.]+) MiB, does not match expectation")
_COPIES: Final = re.compile(r"sched copies = (\d{1,9})")

_FLASH_ATTN: Final = {"auto": "auto", "enabled": "on", "disabled": "off", "1": "on", "0": "off"}
_SETTINGS: Final[Mapping[str, Callable[[str], Any]]] = {
    "n_seq_max": int,
    "n_ctx": int,
    "n_batch": int,
    "n_ubatch": int,
    "n_outputs_max": int,
    "kv_unified": lambda text: text == "true",
    "flash_attn": _FLASH_ATTN.__getitem__,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """One context, and the load of its model, as far as the log tells of them.

    `settings` are fields of `ggufphys.Params`; those that no line states but several let conclude have their reason in
    `concluded`. `remarks` are what may explain a difference, a sentence each.
    """

    load: int  # contexts of one load have the same number
    path: str
    n_tensors: int | None
    architecture: str
    allocated: bool
    build: str
    settings: Mapping[str, Any]
    concluded: Mapping[str, str]
    buffers: tuple[LoggedBuffer, ...]
    remarks: tuple[str, ...]


def parse_log(lines: Iterable[str]) -> tuple[LoggedRun, ...]:
    """The contexts that bare lines of a log tell of, in order."""
    reader = _Reader()
    for line in lines:
        reader.read(line)
    reader.end_load()
    # llama-bench names its build behind all that it ran
    return tuple(run if run.build else replace(run, build=reader.first_build) for run in reader.runs)


class _Reader:
    """Reads lines in order; what belongs to a load, and what to a context created from it, is kept apart."""

    def __init__(self) -> None:
        self.runs: list[LoggedRun] = []
        self.build = self.first_build = ""
        self.n_loads = 0
        # announced: name, description, free bytes; a load takes them when its buffers are listed
        self.devices: list[tuple[str, str, int]] = []
        self.devices_taken = False
        self.begin_load("", None)

    def begin_load(self, path: str, n_tensors: int | None) -> None:
        self.path, self.n_tensors, self.architecture, self.allocated = path, n_tensors, "", True
        self.load_settings: dict[str, Any] = {}
        self.load_devices: list[tuple[str, str, int]] = []
        self.overrides: list[tuple[str, str]] = []
        self.load_buffers: list[LoggedBuffer] = []
        self.told = False  # of a context with this model
        self.begin_context()

    def begin_context(self) -> None:
        self.settings: dict[str, Any] = {}
        self.buffers: list[LoggedBuffer] = []
        self.remarks: list[str] = []
        self.n_copies = 1

    def end_load(self) -> None:
        self.end_context()
        if self.load_buffers and not self.told:
            self._tell()

    def end_context(self) -> None:
        if self.settings or self.buffers:
            self._tell()
        self.begin_context()

    def read(self, line: str) -> None:
        if _WORTH_A_LOOK.search(line) is None:
            return
        if (buffer := buffer_line(line)) is not None:
            self._take_buffer(buffer)
        elif match := _SETTING.search(line):
            self._take_setting(match[1], match[2])
        elif "constructing llama_context" in line:
            self.end_context()
        elif match := _LOADED.search(line):
            self.end_load()
            self.n_loads += 1
            self.begin_load(match[2], int(match[1]))
        else:
            self._take_hint(line)

    def _take_buffer(self, buffer: LoggedBuffer) -> None:
        if buffer.quantity == "model":
            if not self.devices_taken:
                self.load_devices, self.devices_taken = self.devices, True
            self.load_buffers.append(buffer)
        else:
            self.buffers.append(buffer)

    def _take_setting(self, key: str, value: str) -> None:
        if key == "arch":
            self.architecture = value
        elif key == "no_alloc":
            self.allocated = value == "0"
        elif key in _SETTINGS:
            if key in self.settings:  # older versions do not say when they begin another context
                self.end_context()
            with suppress(ValueError, KeyError):
                self.settings[key] = _SETTINGS[key](value)

    def _take_hint(self, line: str) -> None:
        if match := _CACHE.search(line):
            for name, text in (("type_k", match[1]), ("type_v", match[2])):
                if text in CACHE_TYPES:
                    self.settings.setdefault(name, text)
            if streams := _STREAMS.search(line):
                self.settings.setdefault("kv_unified", streams[2] == "1" and streams[1] != "1")
        elif "using full-size SWA cache" in line:
            self.settings["swa_full"] = True
        elif "Flash Attention not supported, set to disabled" in line:
            self.settings["flash_attn"] = "off"
            self.remarks.append("flash attention was asked for and is not supported there")
        elif match := _LOAD_MODE.search(line):
            modes = {"true": "mmap", "false": "none"}  # of versions that could do no more
            said = LOAD_MODES.get(modes.get(match[1], match[1]), {})
            self.load_settings.update((k, v) for k, v in said.items() if v or k == "use_mmap")
        elif match := _DEVICE.search(line):
            if self.devices_taken:
                self.devices, self.devices_taken = [], False
            self.devices.append((match[1], match[2], int(match[3]) * MIB))
        elif match := _OFFLOADED.search(line):
            self.load_settings["n_gpu_layers"] = int(match[1])
        elif match := _OVERRIDE.search(line):
            self.overrides.append((f"^{re.escape(match[1])}$", match[2]))
        elif match := _GREW.search(line):
            self.remarks.append(f"the {match[1]} compute buffer grew to {match[2]} MiB while it ran")
        elif match := _COPIES.search(line):
            self.n_copies = int(match[1])
        elif build := build_said(line):
            if self.build not in ("", build):  # another program writes on
                self.end_load()
                self.begin_load("", None)
            self.build = build
            self.first_build = self.first_build or build

    def _tell(self) -> None:
        self.told = True
        settings, concluded = self._conclusions()
        if self.n_copies > 1:
            self.remarks.append(f"pipeline parallelism keeps {self.n_copies} copies of a graph's inputs")
        self.runs.append(
            LoggedRun(
                load=self.n_loads,
                path=self.path,
                n_tensors=self.n_tensors,
                architecture=self.architecture,
                allocated=self.allocated,
                build=self.build,
                settings=settings,
                concluded=concluded,
                buffers=(*self.load_buffers, *self.buffers),
                remarks=tuple(self.remarks),
            )
        )

    def _conclusions(self) -> tuple[dict[str, Any], dict[str, str]]:
        """All settings, and the reasons for those that no line states."""
        settings, concluded = {**self.load_settings, **self.settings}, {}
        names = [b.buffer for b in self.load_buffers]
        if names and self.allocated:
            extra = [name for name in names if "REPACK" in name or name == "AMX"]
            settings["use_extra_bufts"] = bool(extra)
            concluded["use_extra_bufts"] = f"there is {'a' if extra else 'no'} CPU_REPACK or AMX buffer"
            if "AMX" in names:
                settings["use_amx"], concluded["use_amx"] = True, "there is an AMX buffer"
            if "use_mmap" not in settings:
                settings["use_mmap"] = any(name.endswith("_Mapped") for name in names)
                concluded["use_mmap"] = f"there is {'a' if settings['use_mmap'] else 'no'} mapped buffer"
        if self.load_devices:
            settings["devices"] = self._buffer_devices()
            if self.overrides:
                settings["override_tensor"] = tuple(self.overrides)
            kv = {b.buffer for b in self.buffers if b.quantity == "context"}
            if kv == {"CPU"} and settings.get("n_gpu_layers"):
                settings["offload_kqv"] = False
                concluded["offload_kqv"] = "there is no cache on a device"
        else:
            settings.pop("n_gpu_layers", None)
        return settings, concluded

    def _buffer_devices(self) -> tuple[Device, ...]:
        """The devices by the name of their buffers: an RPC server's are RPC0[host:port], its device maybe RPC3."""
        names = list(dict.fromkeys(b.buffer for b in (*self.load_buffers, *self.buffers)))
        devices = []
        for name, description, memory_bytes in self.load_devices:
            buffer = next((n for n in names if n == name or n.endswith(f"[{description}]")), name)
            if buffer in names:
                names.remove(buffer)  # one server may have several devices
            devices.append(Device(name=buffer, memory_bytes=memory_bytes))
        return tuple(devices)
