"""Can a device work with a weight? llama.cpp's loader asks it about one operation on 512 tokens before it goes there.

Which one follows from what the tensor is for. Those that every backend runs on plain numbers are not asked about.

Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, weight_buft_supported; src/llama-arch.cpp, LLM_TENSOR_INFOS.
"""

from collections.abc import Mapping
from typing import Any, Final

from ggufphys.gguf import GGMLType, GGUFFile, TensorInfo
from ggufphys.graph import ops
from ggufphys.graph.devices.backends.repack import NOT_MULTIPLIED, stem_of
from ggufphys.graph.ir import Tensor
from ggufphys.graph.ops import F32, I32
from ggufphys.graph.ssm_ops import ssm_scan

N_TOKENS: Final = 512
N_SEQS: Final = 3
_NUMBERS: Final = frozenset({F32, GGMLType.F16})
_LOOKED_UP: Final = frozenset({
    "token_embd", "position_embd", "token_types", "per_layer_token_embd", "dec.attn_rel_b", "enc.attn_rel_b", "d2t",
    "ffn_gate_tid2eid", "nextn.embed_tokens", "attn_compressor_ape", "indexer_compressor_ape", "markov_w1",
    "selector_predecessor", "selector_successor",
})  # fmt: skip


class Trials:
    """What the loader asks about one file's weights; a scan of states is asked about where there is `ssm_d` too."""

    def __init__(self, gguf: GGUFFile) -> None:
        self.scans = any(part in ("ssm_d", "ssm_d.weight") for _, part in gguf.split_names)
        keys: Mapping[str, Any] = gguf.metadata
        arch = gguf.architecture
        self.d_inner, self.d_state = (_number(keys.get(f"{arch}.ssm.{key}")) for key in ("inner_size", "state_size"))
        self.n_group = _number(keys.get(f"{arch}.ssm.group_count")) or 1
        self.n_expert_used = _number(keys.get(f"{arch}.expert_used_count")) or 1

    def node(self, tensor: TensorInfo, *, as_output: bool) -> Tensor | None:
        """The operation with this weight; None where nothing is asked."""
        if not isinstance(tensor.ggml_type, GGMLType) or not tensor.ne:
            return None
        stem, weight = stem_of(tensor), ops.weight(tensor.ggml_type, *tensor.ne, name=tensor.name)
        n_in, n_out = weight.ne[:2]
        if stem == "ssm_a" and self.scans:
            return self._scan(weight)
        if stem in _LOOKED_UP and not as_output:
            return ops.get_rows(weight, _leaf(I32, N_TOKENS))
        if stem.endswith("exps"):
            x, ids = _leaf(F32, n_in, self.n_expert_used, N_TOKENS), _leaf(I32, self.n_expert_used, N_TOKENS)
            return ops.mul_mat_id(weight, x, ids)
        if (n_out == 1 and weight.type in _NUMBERS) or (stem in NOT_MULTIPLIED and not as_output):
            return None
        return ops.mul_mat(weight, _leaf(F32, n_in, N_TOKENS, weight.ne[2], weight.ne[3]))

    def _scan(self, weight: Tensor) -> Tensor:
        d_state, n_head = self.d_state if weight.ne[0] == 1 else weight.ne[0], weight.ne[1]
        d = self.d_inner // n_head
        rows = _leaf(F32, d_state, self.n_group, N_TOKENS, N_SEQS)
        return ssm_scan(
            _leaf(F32, d_state, d, n_head, N_SEQS), _leaf(F32, d, n_head, N_TOKENS, N_SEQS),
            _leaf(F32, n_head, N_TOKENS, N_SEQS), weight, rows, rows, _leaf(I32, N_SEQS),
        )  # fmt: skip


def _leaf(ggml_type: GGMLType, *ne: int) -> Tensor:
    return ops.new_input(ggml_type, *ne)


def _number(value: object) -> int:
    """An integer of the file, of an array the largest; 0 where it is neither."""
    if isinstance(value, int):
        return value
    numbers = [n for n in value if isinstance(n, int)] if isinstance(value, (list, tuple)) else []
    return max(numbers, default=0)
