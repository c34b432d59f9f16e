"""Which weights of a small model may have a scale beside them, as those in NVFP4 have, and the model with all of them.

Source: llama.cpp 0c1e570 src/llama-model.cpp, load_tensors (the generic pass); src/models/dflash.cpp.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from ggufphys.gguf import GGMLType
from ggufphys.gguf.writer import TensorSpec
from tests import archs

SCALED: Final = re.compile(
    r"(blk\.\d+\.(attn_(q|k|v|qkv|output|gate)|ffn_(gate|up|down)(_exps|_shexp)?|ssm_(in|out|alpha|beta)"
    r"|nextn\.(eh_proj|shared_head_head))|output)\.weight"
)
OF_ANOTHER_NAME: Final = {("minimax-01", "attn_gate.weight"), ("deepseek4", "nextn.eh_proj.weight")}  # in llama_layer


def beside(name: str, weight: str, named: Collection[str]) -> str | None:
    """The scale's name, of a model whose tensors are `named`; None where llama.cpp loads none.

    Of a weight of a dense feed-forward layer with a bias it loads one, and then ends.
    """
    if SCALED.fullmatch(weight) is None or (archs.models()[name].arch, weight.split(".", 2)[-1]) in OF_ANOTHER_NAME:
        return None
    stem = weight.removesuffix("weight")
    return None if ".ffn_" in weight and f"{stem}bias" in named else f"{stem}scale"


def of_head(name: str) -> tuple[str, ...]:
    """What the names of a model's prediction heads begin with: unless asked to, llama.cpp loads none of their weights.

    A scale beside a weight that it did not load is one tensor too many, of which it refuses the file.
    Source: llama.cpp 0c1e570 src/llama-model-loader.cpp, create_tensor (TENSOR_SKIP) and done_getting_tensors.
    """
    model = archs.models()[name]
    n_layer, n_head = (model.metadata.get(f"{model.arch}.{key}", 0) for key in ("block_count", "nextn_predict_layers"))
    assert isinstance(n_layer, int)
    assert isinstance(n_head, int)
    return tuple(f"blk.{il}." for il in range(n_layer - n_head, n_layer))


def with_scales(name: str, *, head: bool) -> Sequence[TensorSpec]:
    """A recorded model's tensors and all scales, of inputs too, the output in NVFP4; of a prediction head if asked.

    Matrices keep their types: but for the output's, llama.cpp loads and multiplies scales of all.
    """
    tensors = archs.records()[name].tensors
    skipped = () if head else of_head(name)
    named = {t.name for t in tensors}
    scales = [
        TensorSpec(scale.replace("scale", kind), t.ne[2:3] or (1,), GGMLType.F32)
        for t in tensors
        if not t.name.startswith(skipped) and (scale := beside(name, t.name, named))
        for kind in ("scale", "input_scale")
        if t.name != "output.weight" or t.ne[0] % 64 == 0
    ]
    return [
        *(
            replace(t, ggml_type=GGMLType.NVFP4) if t.name == "output.weight" and t.ne[0] % 64 == 0 else t
            for t in tensors
        ),
        *scales,
    ]
