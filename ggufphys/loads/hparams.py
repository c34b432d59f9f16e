"""Do the keys hold what llama.cpp's loader reads? The hyperparameters as it has them, and every reason why not.

Source: llama.cpp 0c1e570 src/llama-model.cpp, load_hparams, load_swa_pattern; src/llama-model-loader.cpp, get_key,
get_arr, get_key_or_arr, get_arr_n.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

from ggufphys.gguf import GGUFArray, GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.loads.refusal import Refusal
from ggufphys.loads.table import BUILDING, EVERY, GLOBAL, Branch, Expression, Pattern, Read, Rule, Statement, statements
from ggufphys.loads.types import LOADER, TYPE_NAMES, WRONG_TYPE

MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
HPARAMS: Final = "llama.cpp 0c1e570 src/llama-model.cpp, load_hparams; src/models/, load_arch_hparams"
BUILDERS: Final = "llama.cpp 0c1e570 src/models/, graph; src/llama-model.cpp, create_memory; src/llama-context.cpp"
WINDOW_KEY: Final = "attention.sliding_window_pattern"

WANTED: Final = {name: kind for kind, name in TYPE_NAMES.items()}

# Hyperparameters that are not 0 before anything is read. Source: src/llama-hparams.h.
DEFAULTS: Final[dict[str, Any]] = {
    "causal_attn": True, "token_shift_count": 2, "pooling_type": -1, "pooling_type_cls": -1, "swa_type": "none",
    "n_layer_kv_from_start": -1, "router_layer": -1, "kda_gate_lower_bound": -math.inf, "n_loops": 1, "n_cls_out": 1,
    "classifier_labels": (), "token_ids": (), "substitute_ids": (), "target_layer_ids": (), "ple_layers": (),
    "rope_scaling": "linear", "hidden_act": "",
}  # fmt: skip
# Architectures without a cache of keys and values of the usual kind: none, states beside it, or one of their own.
# Source: src/llama-model.cpp, create_memory; src/llama-arch.cpp, llm_arch_is_recurrent, llm_arch_is_hybrid.
OTHER_MEMORY: Final = frozenset((
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "wavtokenizer-dec",
    "modern-bert", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1", "minimax-m3", "glm-dsa", "deepseek32",
    "glm5-next", "hy_v4", "dots3note", "deepseek4", "dflash", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7",
    "arwkv7", "jamba", "falcon-h1", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe",
    "qwen3next", "kimi-linear", "bailingmoe3", "kimi-k3", "qwen35", "qwen35moe", "qwen4exp", "minimax-01",
))  # fmt: skip
COUNTS: Final = ("n_layer_all", "n_layer")
LISTS: Final = (
    "n_head", "n_head_kv", "n_ff", "n_ff_exp", "n_expert_used", "is_swa", "is_recr", "is_indexer_full",
    "compress_ratios",
)  # fmt: skip


class Values(dict[str, Any]):
    """Hyperparameters by llama.cpp's names; what was never set is 0, of a layer too."""

    def __missing__(self, name: str) -> Any:
        value = [0] * MAX_LAYERS if name in LISTS else DEFAULTS.get(name, 0)
        if name in LISTS:
            self[name] = value
        return value


def read_values(gguf: GGUFFile, arch: str, *, alone: bool = True) -> tuple[Values, tuple[Refusal, ...]]:
    """What llama.cpp's loader reads for an architecture that it knows, and why it or a graph's builder would stop.

    `alone`: no context of another model will be given, which some draft models need.
    """
    reader = _Reader(gguf, arch)
    for section in (EVERY, arch):
        reader.run(statements(section))
    reader.values |= {"alone": alone, "keeps_kv": arch not in OTHER_MEMORY}
    reader.source, reader.in_context = BUILDERS, True
    for section in (EVERY, arch):
        reader.run(statements(section, BUILDING))
    return reader.values, tuple(reader.refusals)


class _Reader:
    """The loader's state: what has been read so far, and what could not be."""

    def __init__(self, gguf: GGUFFile, arch: str) -> None:
        self.gguf = gguf
        self.arch = arch
        self.source = HPARAMS
        self.in_context = False
        self.refusals: list[Refusal] = []
        self.values = Values(arch=arch, rope_pattern=[1] * MAX_LAYERS)
        self.keys: dict[str, str] = {}  # by hyperparameter: the key that it came from
        self.unread: set[str] = set()  # hyperparameters whose keys could not be read, and what follows from them
        self.globals = {
            "__builtins__": {}, "max": max, "min": min, "len": len, "sum": sum, "map": map, "zip": zip, "all": all,
            "any": any, "range": range, "has": self.has, "has_tensor": self.has_tensor, "signed": _signed,
        }  # fmt: skip

    def full(self, key: str) -> str:
        return key if key.startswith(GLOBAL) else f"{self.arch}.{key}"

    def has(self, key: str) -> bool:
        return self.full(key) in self.gguf.metadata

    def has_tensor(self, name: str) -> bool:
        return name in self.gguf.tensors_by_name

    def run(self, lines: Sequence[Statement]) -> None:
        for line in lines:
            if isinstance(line, Read):
                self.read(line)
            elif isinstance(line, Rule):
                self.rule(line)
            elif isinstance(line, Pattern):
                self.pattern(line)
            else:
                self.branch(line)

    def branch(self, line: Branch) -> None:
        if self.unread.isdisjoint(line.condition.names):  # which way it would have gone is not known
            self.run(line.then if self.evaluate(line.condition) else line.otherwise)

    def evaluate(self, expression: Expression) -> Any:
        names = expression.names.difference(self.globals)
        return eval(expression.code, {**self.globals, **{name: self.values[name] for name in names}})

    def rule(self, line: Rule) -> None:
        if not self.unread.isdisjoint(line.expression.names):
            self.unread.add(line.name)
            return
        try:
            value = self.evaluate(line.expression)
        except ZeroDivisionError:
            self.refuse(line, f"no division by zero in {line.expression.text}", ends_process=True)
            return
        if line.word == "set":
            self.values[line.name] = value
            self.unread.discard(line.name)
        elif bool(value) == (line.word == "refuse"):
            wanted = line.expression.text
            self.refuse(line, f"not {wanted}" if line.word == "refuse" else wanted, line.word == "assert")

    def refuse(self, line: Rule, expected: str, ends_process: bool) -> None:
        names = sorted(name for name in line.expression.names if name in self.keys or name in self.values)
        keys = [self.keys[name] for name in names if name in self.keys]
        self.unread.update((line.name, *names))
        self.refusals.append(
            Refusal(
                what="a value that llama.cpp does not go on with",
                where=", ".join(keys) or self.full("*"),
                found=", ".join(f"{name} = {_short(self.values[name])}" for name in names) or "none",
                expected=expected,
                source=self.source,
                ends_process=ends_process,
                in_context=self.in_context,
            )
        )

    def pattern(self, line: Pattern) -> None:
        """Source: src/llama-model.cpp, load_swa_pattern; src/llama-hparams.cpp, set_swa_pattern."""
        if isinstance(self.gguf.metadata.get(self.full(WINDOW_KEY)), GGUFArray):
            self.read(Read(WINDOW_KEY, "u32[512]", "is_swa", False))
            return
        period = Read(WINDOW_KEY, "u32", "swa_period", False)
        self.values["swa_period"] = line.period
        self.read(period)
        n = self.values["swa_period"]
        self.values["is_swa"] = [
            n == 0 or (il % n != 0 if line.dense_first else il % n < n - 1) for il in range(MAX_LAYERS)
        ]

    def read(self, line: Read) -> None:
        """One call of get_key, get_arr, get_key_or_arr or get_arr_n."""
        key = self.full(line.key)
        value = self.gguf.metadata.get(key)
        kind, length = _way(line.how)
        reason = None
        if not self.unread.isdisjoint(COUNTS) and "*" in line.how:  # how many there must be is not known
            return
        if value is None or (length == "[" and not isinstance(value, GGUFArray)):
            if line.required:
                wanted = f"{'an array' if length == '[' else 'a value'} of type {kind}"
                reason = ("a key that this architecture needs is missing", "none", wanted)
        elif isinstance(value, GGUFArray):
            reason = self._read_array(line, value, kind, length)
        else:
            given = self.gguf.value_types[key]
            if kind == "count" or given is not WANTED[kind]:
                wanted = "an array" if kind == "count" else kind
                reason = (WRONG_TYPE, TYPE_NAMES[given], wanted)
            elif length == "*":
                n = self._count(line.how)
                self.values[line.name] = [value] * n + [0] * (MAX_LAYERS - n)
            else:
                self.values[line.name] = value
        self.keys[line.name] = key
        self.unread.discard(line.name)
        if reason is not None:
            self.unread.add(line.name)
            what, found, expected = reason
            self.refusals.append(
                Refusal(what=what, where=key, found=found, expected=expected, source=f"{LOADER}, {_call(line.how)}")
            )

    def _read_array(self, line: Read, value: GGUFArray, kind: str, length: str) -> tuple[str, str, str] | None:
        found = f"arr[{TYPE_NAMES[value.element_type]}, {len(value):,}]"
        if kind == "count":
            self.values[line.name] = len(value)
            return None
        if not length:
            return WRONG_TYPE, found, kind
        limit = self._count(line.how)
        if length == "*" and len(value) != limit:
            return "the array has another length than there are layers", found, f"{limit:,} elements, or one value"
        fixed = length == "*" or limit < math.inf
        if value.element_type not in _element_types(kind, fixed):
            return "the array has elements of another type than llama.cpp reads", found, f"elements of type {kind}"
        if len(value) > limit:
            return "the array is longer than llama.cpp has room for", found, f"at most {limit:,} elements"
        elements = [int(v) if isinstance(v, bool) else v for v in value]
        if kind == "u32":  # whose bytes i32 may be
            elements = [v % (1 << 32) for v in elements]
        if line.how != f"{kind}[]":
            before = self.values[line.name] or [0] * MAX_LAYERS
            elements += before[len(elements) :] if isinstance(before, list) else []
        self.values[line.name] = elements
        return None

    def _count(self, how: str) -> Any:
        """How many elements: `u32*` n_layer_all, `u32*n_layer`, `i32*4`, `u32[512]`, `i32[]` any number."""
        _, _, text = how.partition("*")
        if "*" in how:
            return int(text) if text.isdigit() else int(self.values[text or "n_layer_all"])
        inside = how[how.index("[") + 1 : -1]
        return int(inside) if inside else math.inf


def _way(how: str) -> tuple[str, str]:
    """`u32*n_layer` as ("u32", "*"), `u32[512]` as ("u32", "["), `f32` as ("f32", "")."""
    for mark in "*[":
        if mark in how:
            return how.partition(mark)[0], mark
    return how, ""


def _call(how: str) -> str:
    return "get_arr_n" if how == "count" else "get_key_or_arr" if "*" in how else "get_arr" if "[" in how else "get_key"


def _element_types(kind: str, fixed: bool) -> tuple[ValueType, ...]:
    if kind in ("u32", "i32"):
        return (ValueType.UINT32, ValueType.INT32, *((ValueType.BOOL,) if fixed else ()))
    return (WANTED[kind],)


def _signed(n: int) -> int:
    """A 32-bit number as C's int has it."""
    return (n + (1 << 31)) % (1 << 32) - (1 << 31)


def _short(value: Any) -> str:
    if isinstance(value, list):
        head = ", ".join(map(str, value[:6]))
        return f"[{head}, ...]"
    return repr(value)


__all__ = ["Values", "read_values"]
