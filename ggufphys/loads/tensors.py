"""Are the file's tensors those that llama.cpp's loader creates? Names, shapes, and how many there must be.

The loader's steps are followed as `tensors.txt` has them; what it counts is counted too, since of the tensors that are
left over it knows the number alone.

Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, check_tensor_dims, create_tensor, done_getting_tensors;
src/llama-model.cpp, load_tensors, create_tensor.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final

from ggufphys.gguf import GGMLType, GGUFFile, TensorInfo
from ggufphys.gguf.names import split_name
from ggufphys.loads.hparams import Values
from ggufphys.loads.outline import expression
from ggufphys.loads.refusal import Refusal
from ggufphys.loads.tensor_names import DUP, OPTIONAL, RESHAPE, SKIP, UNSCALED, names_of
from ggufphys.loads.tensor_table import Branch, Check, Each, Let, Line, Row, rows_of

LOADER: Final = "llama.cpp 0c1e570 src/llama-model-loader.cpp"
MODELS: Final = "llama.cpp 0c1e570 src/models/, load_arch_tensors"

# Weights that may have factors of their own, one, or one an expert. Source: src/llama-model.cpp, load_tensors.
SCALES: Final = ("scale", "input_scale")
SCALED: Final = (
    "attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_gate", "ffn_gate", "ffn_down", "ffn_up",
    "ffn_gate_shexp", "ffn_down_shexp", "ffn_up_shexp", "ssm_in", "ssm_out", "ssm_alpha", "ssm_beta",
    "nextn.eh_proj", "nextn.shared_head_head",
)  # fmt: skip
SCALED_BY_EXPERT: Final = ("ffn_gate_exps", "ffn_down_exps", "ffn_up_exps")
ROTATED: Final = (GGMLType.F32, "src/llama-model-loader.cpp, weight_buft_supported; ggml/src/ggml.c, ggml_rope_impl")
# Tensors whose type is insisted on, and where; other types are found out where nodes are made of them, if at all.
TYPED: Final = {
    "rope_freqs.weight": ROTATED,
    "rope_factors_long.weight": ROTATED,
    "rope_factors_short.weight": ROTATED,
    "d2t": (GGMLType.I64, "src/models/eagle3.cpp, src/models/dflash.cpp, graph"),
}
WEIGHTS_OF: Final = "weights_of"
OF_A_LAYER: Final = ("i", "made", "has_tensor", "ne")  # what changes from layer to layer, or while tensors are made


def check_tensors(gguf: GGUFFile, h: Values, *, load_mtp: bool = False) -> Iterator[Refusal]:
    """Why llama.cpp would not load the tensors of a file with these hyperparameters: every reason."""
    rows = rows_of(h["arch"])
    if rows is None:
        return
    loader = _Loader(gguf, h, load_mtp)
    loader.run(rows)
    loader.create_scales()
    yield from loader.refusals or loader.left_over()


class _Loader:
    """llama.cpp's loader while it creates tensors: which there are, and what is wrong with them."""

    def __init__(self, gguf: GGUFFile, h: Values, load_mtp: bool) -> None:
        self.tensors = gguf.tensors_by_name
        self.n_layer_all: int = h["n_layer_all"]
        self.made: set[str] = set()  # created and loaded
        self.scalable: set[str] = set()  # made, and factors of it are looked for
        self.counted: set[str] = set()  # created, or left in the file on purpose
        self.n_created = 0
        self.refusals: dict[Refusal, None] = {}  # in order, each once: layers share tensors
        self.layer = ""  # its number, where rows are one layer's
        self.weights_of: dict[str, str] = {}  # layers that have another layer's weights
        self.same: dict[str, Any] = {}  # what expressions are in every layer, until a name is set
        self.names = names_of(gguf, h, self.full_name, self.made, load_mtp=load_mtp)

    def full_name(self, name: str) -> str:
        """A name of the table, for the layer that it stands in now."""
        return f"blk.{self.layer}{name}" if name.startswith(".") else name.replace("*", self.layer)

    def run(self, lines: Sequence[Line]) -> None:
        """Follow every line, in order."""
        for line in lines:
            try:
                self.follow(line)
            except ZeroDivisionError:
                self.refuse("a division by zero", self.where, "0", "a divisor above 0", MODELS, ends_process=True)

    def follow(self, line: Line) -> None:
        """One row, or those below it."""
        if isinstance(line, Row):
            flags = self.value(line.flags) if line.flags else 0
            self.create(line.name.replace("*", self.layer), self.value(line.shape), flags)
        elif isinstance(line, Branch):
            self.run(line.then if self.value(line.condition) else line.otherwise)
        elif isinstance(line, Let):
            self.names[line.name] = self.value(line.value)
            self.same.clear()
            if line.name == WEIGHTS_OF:
                self.weights_of[self.layer] = str(self.names[WEIGHTS_OF])
        elif isinstance(line, Check):
            self.check(line)
        else:
            self.each(line)

    def value(self, text: str) -> Any:
        """What an expression is now."""
        if text in self.same:
            return self.same[text]
        code, names = expression(text)
        value = eval(code, {name: self.names[name] for name in names})
        if names.isdisjoint(OF_A_LAYER):
            self.same[text] = value
        return value

    @property
    def where(self) -> str:
        """Which part of the model a row is about."""
        return f"layer {self.layer}" if self.layer else "the model"

    def each(self, line: Each) -> None:
        """Follow a line that stands for rows of several layers."""
        end = self.value(line.end)
        for il in range(self.value(line.first), end):
            if il >= self.n_layer_all:  # no device was chosen for it
                wanted = f"at most {self.n_layer_all}, the block count"
                self.refuse("more layers than the model has", "layers", str(end), wanted, MODELS)
                break
            self.names["i"], self.layer = il, str(il)
            self.run(line.rows)
        self.layer = ""

    def check(self, line: Check) -> None:
        """What the loader insists on."""
        if bool(self.value(line.value)) == (line.word == "refuse"):
            wanted = f"not {line.value}" if line.word == "refuse" else line.value
            names = {name: self.names[name] for name in expression(line.value)[0].co_names if name in self.names.h}
            found = ", ".join(f"{name} = {_short(value)}" for name, value in names.items()) or "otherwise"
            self.refuse(
                "hyperparameters that its tensors cannot have", self.where, found, wanted, MODELS,
                ends_process=line.word == "assert",
            )  # fmt: skip

    def create(self, name: str, shape: tuple[int, ...], flags: int) -> None:
        """One call of create_tensor."""
        tensor = self.tensors.get(name)
        source = f"{LOADER}, check_tensor_dims"
        if tensor is None:
            if not flags & OPTIONAL:
                self.refuse("a tensor that this architecture needs is missing", name, "none", _text(shape), source)
            return
        if tensor.ne != shape and not _fits(tensor, shape, flags):
            what = "the tensor has another shape than llama.cpp wants"
            self.refuse(what, name, _text(tensor.ne), _text(shape), source)
        self.counted.add(name)
        wanted, asserted = TYPED.get(name, (None, ""))
        if wanted is not None and tensor.ggml_type != wanted and not flags & SKIP:
            what = "the tensor has another type than llama.cpp insists on"
            self.refuse(what, name, tensor.type_name, wanted.name, f"llama.cpp 0c1e570 {asserted}", ends_process=True)
        if flags & SKIP:
            self.n_created += 1
        else:
            self.made.add(name)
            if not flags & UNSCALED:
                self.scalable.add(name)
            self.n_created += not flags & DUP

    def create_scales(self) -> None:
        """The factors of weights, which any architecture may have."""
        for name in self.tensors:
            base, _, suffix = name.rpartition(".")
            if suffix in SCALES and name not in self.counted:
                size = self.n_scales(*split_name(base))
                if size:
                    self.create(name, (size,), OPTIONAL)

    def n_scales(self, il: int | None, part: str) -> int:
        """How many factors a weight has, 0 if none."""
        if il is None:
            output = self.tensors.get("output.weight")
            return int(part == "output" and output is not None and output.ggml_type == GGMLType.NVFP4)
        weight = f"blk.{self.weights_of.get(str(il), il)}.{part}.weight"
        if il >= self.n_layer_all or weight not in self.scalable:
            return 0
        return self.names["n_expert"] if part in SCALED_BY_EXPERT else int(part in SCALED)

    def left_over(self) -> Iterator[Refusal]:
        """Tensors of the file that nothing created: only the number counts."""
        n_tensors, source = len(self.tensors), f"{LOADER}, done_getting_tensors"
        unknown = [name for name in self.tensors if name not in self.counted]
        if self.n_created < n_tensors:
            for name in unknown:
                yield Refusal(
                    what="a tensor that this architecture does not load", where=name,
                    found=_text(self.tensors[name].ne), expected="none", source=source,
                )  # fmt: skip
        if self.n_created > n_tensors or (self.n_created < n_tensors and not unknown):
            yield Refusal(
                what="tensors are counted more or less often than there are", where="tensors", found=str(n_tensors),
                expected=str(self.n_created), source=source,
            )  # fmt: skip

    def refuse(self, what: str, where: str, found: str, expected: str, source: str, ends_process: bool = False) -> None:
        """Note one reason more."""
        refusal = Refusal(
            what=what, where=where, found=found, expected=expected, source=source, ends_process=ends_process
        )
        self.refusals[refusal] = None


def _fits(tensor: TensorInfo, shape: tuple[int, ...], flags: int) -> bool:
    if flags & RESHAPE:
        return prod(shape) == tensor.n_elements
    return (tensor.ne + (1,) * 4)[:4] == (shape + (1,) * 4)[:4]


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _short(value: Any) -> str:
    return f"[{', '.join(map(str, value[:6]))}, ...]" if isinstance(value, list) else repr(value)


__all__ = ["check_tensors"]
