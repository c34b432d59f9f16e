"""Which type does llama-quantize's mix give one tensor, once it is clear that the tensor is quantised at all?

A rule is a function of a `Subject`; `mix_type` picks the rule. Layers near both ends and every third one between get
more bits in the _M mixes, attention's V and the FFN's down projection before the rest.

Source: llama.cpp 0c1e570 src/llama-quant.cpp, llama_tensor_get_type_impl.
"""

import re
from collections.abc import Callable
from typing import Final

from ggufphys.frozen import dataclass
from ggufphys.gguf.ggml_types import SIZES
from ggufphys.gguf.ggml_types import GGMLType as T
from ggufphys.plan.quantize_options import QuantizeOptions
from ggufphys.plan.quantize_tables import (
    EXPERTS_BY_ROLE,
    GROUPED_70B,
    MIXES_OF_ITS_OWN,
    N_LAYER_70B,
    Q8_0_PARTS_OF,
    UNQUANTIZED,
    Role,
)

LAYER: Final = re.compile(r"blk\.\s*([+-]?\d+)")
LOW_BIT: Final = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})
IQ2_LARGE: Final = frozenset({"IQ2_S", "IQ2_M"})


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeModel:
    """What the choice of types depends on beside names and shapes; counts of heads are layer 0's."""

    architecture: str
    n_layer_all: int
    n_layer: int  # without NextN layers
    n_expert: int
    n_head: int
    n_head_kv: int

    @property
    def n_gqa(self) -> int:
        """Query heads for each KV head; 0 in a model that starts with a layer without attention.

        Raises:
            ValueError: a projector (clip) has no layers to ask, at which llama-quantize aborts.
        """
        if self.n_layer_all == 0:
            raise ValueError(
                f"llama-quantize aborts: this file type's mix asks for the heads of layer 0, which a file of "
                f"architecture {self.architecture!r} does not have"
            )
        return self.n_head // self.n_head_kv if self.n_head_kv else 0

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp names the model's size "70B"."""
        if self.architecture in GROUPED_70B and (self.n_expert == 8 or self.n_head == self.n_head_kv):
            return False
        return N_LAYER_70B.get(self.architecture) == self.n_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One tensor as the rules see it."""

    model: QuantizeModel
    file_type: str
    base: T  # the file type's own
    name: str
    ne: tuple[int, ...]
    role: Role
    index: int  # how many tensors of its role came before it
    n_attn_v: int  # how many tensors of role ATTN_V there are
    tied: bool  # no output.weight: the token embeddings serve as output
    options: QuantizeOptions

    @property
    def has_imatrix(self) -> bool:
        """Whether an importance matrix is given."""
        return self.options.has_imatrix

    @property
    def layer(self) -> int:
        """The layer it counts as: in a mixture of experts the one in its name, else its `index`.

        Raises:
            ValueError: llama-quantize refuses a model with experts whose FFN tensors do not name their layer.
        """
        if self.model.n_expert <= 1:
            return self.index
        match = LAYER.match(self.name)
        if match is None or not 0 <= int(match[1]) < self.model.n_layer_all:
            raise ValueError(
                f"llama-quantize refuses tensor {self.name!r}: with experts its name must begin with a layer, "
                f"blk.0. to blk.{self.model.n_layer_all - 1}."
            )
        return int(match[1])

    @property
    def early(self) -> bool:
        """Whether it is in the first eighth of the layers."""
        return self.layer < self.model.n_layer_all // 8

    @property
    def gets_more_bits(self) -> bool:
        """Whether its layer is one of those that the _M mixes favour."""
        return uses_more_bits(self.layer, self.model.n_layer_all)


def uses_more_bits(layer: int, n_layer: int) -> bool:
    """The first and the last eighth of the layers, and every third one between them."""
    return layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2


def mix_type(t: Subject) -> T:
    """The type of one tensor in the mix, before its shape has a say."""
    if any(part in t.name for part in Q8_0_PARTS_OF.get(t.model.architecture, ())) and t.base not in UNQUANTIZED:
        return T.Q8_0
    if t.role is Role.OUTPUT or (t.tied and t.role is Role.TOKEN_EMBD):
        return _output(t)
    if t.file_type == "MXFP4_MOE":
        return _mxfp4_moe(t)
    if t.role is Role.TOKEN_EMBD:
        return TOKEN_EMBD.get(t.file_type, t.base)
    rule = (LOW_BIT_RULES if t.file_type in LOW_BIT else RULES).get(t.role)
    return rule(t) if rule else t.base


def _output(t: Subject) -> T:
    if t.options.output_tensor_type is not None:
        return t.options.output_tensor_type
    if t.file_type == "MXFP4_MOE" or t.model.architecture in MIXES_OF_ITS_OWN or t.ne[0] % SIZES[t.base].block_size:
        return T.Q8_0
    if t.file_type in LOW_BIT or t.file_type == "IQ3_XXS":
        return T.Q5_K
    return T.Q8_0 if t.base is T.Q8_0 else T.Q6_K


def _mxfp4_moe(t: Subject) -> T:
    is_ffn = t.role in (Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN)
    is_expert = len(t.ne) > 2 and t.ne[2] > 1 and (is_ffn or t.model.architecture not in EXPERTS_BY_ROLE)
    return T.MXFP4 if is_expert else T.Q8_0


def _low_bit_attn_v(t: Subject) -> T:
    if t.model.n_gqa >= 4 or t.model.n_expert >= 4:
        return T.Q4_K
    return T.IQ3_S if t.file_type in IQ2_LARGE else T.Q2_K


def _low_bit_attn_k(t: Subject) -> T:
    return T.Q4_K if t.model.n_expert == 8 else t.base


def _low_bit_ffn_down(t: Subject) -> T:
    # by count even where the name tells the layer: experts do not matter here
    if t.index >= t.model.n_layer_all // 8:
        return t.base
    return T.IQ3_S if t.file_type in IQ2_LARGE else T.Q2_K


def _low_bit_attn_output(t: Subject) -> T:
    if t.model.n_expert == 8:
        return T.Q5_K
    if t.file_type in ("IQ1_S", "IQ1_M"):
        return T.IQ2_XXS
    return T.IQ3_S if t.file_type in IQ2_LARGE else t.base


def _attn_v(t: Subject) -> T:
    if t.model.n_expert == 8:
        return T.Q8_0
    chosen = _attn_v_dense(t)
    return T.Q5_K if t.model.is_70b and chosen in (T.Q3_K, T.Q4_K) else chosen


def _attn_v_dense(t: Subject) -> T:
    if t.file_type in ATTN_V_GROUPED and t.model.n_gqa >= 4:
        return ATTN_V_GROUPED[t.file_type]
    match t.file_type:
        case "Q2_K":
            return T.Q3_K
        case "IQ3_XXS":
            return T.IQ3_XXS if t.has_imatrix else T.IQ3_S
        case "IQ3_M":
            return T.Q4_K
        case "Q3_K_M":
            return T.Q5_K if t.index < 2 else T.Q4_K
        case "Q3_K_L":
            return T.Q5_K
        case "Q4_K_S" if t.index < 4:
            return T.Q5_K
        case "Q4_K_M" | "Q5_K_M" if uses_more_bits(t.index, t.n_attn_v):
            return T.Q6_K
    return t.base


def _attn_k(t: Subject) -> T:
    return T.Q8_0 if t.model.n_expert == 8 else _attn_q(t)


def _attn_q(t: Subject) -> T:
    return ATTN_Q.get(t.file_type, t.base)


def _attn_output(t: Subject) -> T:
    if t.model.architecture in MIXES_OF_ITS_OWN:
        return T.Q4_K if t.file_type == "Q3_K_L" else t.base
    if t.model.n_expert == 8:
        return T.Q5_K if t.file_type in ATTN_OUTPUT_8_EXPERTS else t.base
    return ATTN_OUTPUT.get(t.file_type, t.base)


def _ffn_up_gate(t: Subject) -> T:
    n_layer = t.model.n_layer_all
    in_the_middle = n_layer // 8 <= t.layer < 7 * n_layer // 8
    return T.IQ3_XXS if t.file_type == "IQ3_XS" and in_the_middle else t.base


def _ffn_down(t: Subject) -> T:
    is_falcon = t.model.architecture in MIXES_OF_ITS_OWN
    very_early = t.layer < t.model.n_layer_all // 16
    match t.file_type:
        case "Q2_K":
            return T.Q3_K
        case "Q2_K_S" if t.early:
            return T.Q4_K
        case "IQ3_XXS" if not t.has_imatrix:
            return T.Q4_K if t.early else T.Q3_K
        case "Q3_K_M" if very_early:
            return T.Q5_K
        case "Q3_K_M" if not is_falcon or t.gets_more_bits:
            return T.Q4_K
        case "Q3_K_L":
            return T.Q4_K if is_falcon else T.Q5_K
        case "IQ3_M" if t.early or (t.model.n_expert == 8 and t.gets_more_bits):
            return T.Q4_K
        case "Q4_K_M" if is_falcon:
            return T.Q6_K if very_early else T.Q5_K if t.gets_more_bits else T.Q4_K
        case "Q4_K_M" | "Q5_K_M" if t.gets_more_bits:
            return T.Q6_K
        case "Q4_K_S" if t.early and not is_falcon:
            return T.Q5_K
        case "IQ4_NL" | "IQ4_XS" if t.early and not t.has_imatrix:
            return T.Q5_K
        case "Q4_0" if t.early and t.has_imatrix:
            return T.Q4_1
        case "Q5_0" if t.early and t.has_imatrix:
            return T.Q5_1
    return t.base


# fmt: off
TOKEN_EMBD: Final[dict[str, T]] = {
    "IQ1_S": T.Q2_K,   "IQ1_M": T.Q2_K,   "IQ2_XXS": T.Q2_K,  "IQ2_XS": T.Q2_K,
    "IQ2_S": T.IQ3_S,  "IQ2_M": T.IQ3_S,  "IQ3_XXS": T.IQ3_S,
    "TQ1_0": T.Q4_K,   "TQ2_0": T.Q4_K,   "Q2_0":    T.Q4_K,
}
ATTN_V_GROUPED: Final[dict[str, T]] = {
    "Q2_K":   T.Q4_K,  "Q2_K_S": T.Q4_K,  "IQ3_XXS": T.Q4_K,  "IQ3_XS": T.Q4_K,  "IQ3_S": T.Q4_K,
    "IQ4_NL": T.Q5_K,  "IQ4_XS": T.Q5_K,
}
ATTN_Q: Final[dict[str, T]] = {"IQ3_XS": T.IQ3_XXS, "IQ3_XXS": T.IQ2_S}
ATTN_OUTPUT: Final[dict[str, T]] = {
    "Q2_K": T.Q3_K, "Q3_K_M": T.Q4_K, "Q3_K_L": T.Q5_K, "IQ3_XXS": T.IQ3_S, "IQ3_M": T.Q4_K,
}
ATTN_OUTPUT_8_EXPERTS: Final = frozenset({
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS",
})
Rule = Callable[[Subject], T]
LOW_BIT_RULES: Final[dict[Role, Rule]] = {
    Role.ATTN_V:      _low_bit_attn_v,
    Role.ATTN_K:      _low_bit_attn_k,
    Role.ATTN_OUTPUT: _low_bit_attn_output,
    Role.FFN_DOWN:    _low_bit_ffn_down,
}
RULES: Final[dict[Role, Rule]] = {
    Role.ATTN_V:      _attn_v,
    Role.ATTN_K:      _attn_k,
    Role.ATTN_Q:      _attn_q,
    Role.ATTN_OUTPUT: _attn_output,
    Role.FFN_UP:      _ffn_up_gate,
    Role.FFN_GATE:    _ffn_up_gate,
    Role.FFN_DOWN:    _ffn_down,
}
# fmt: on
