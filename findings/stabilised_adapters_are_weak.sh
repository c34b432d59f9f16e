#!/bin/sh
# An adapter that PEFT trained is converted for llama.cpp by convert_lora_to_gguf.py and should change the model as it did in training. Its strength
# is alpha by rank, or by the rank's root, if it was trained rank-stabilised (use_rslora, which Unsloth and Axolotl offer), and alpha may differ by module
# (alpha_pattern). The converter reads lora_alpha alone, llama.cpp divides it by the rank, and nothing is said: such an adapter of rank 64 is
# applied with an eighth of its strength. --lora-scaled with the root of the rank mends the first, and nothing the second.
# Source: llama.cpp 0c1e570 convert_lora_to_gguf.py (lparams["lora_alpha"]); src/llama-adapter.h, llama_adapter_lora_weight::get_scale; peft 0.21.2
# src/peft/tuners/lora/layer.py, LoraLayer.update_layer (use_rslora).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --no-compile 'torch==2.13.0' 'transformers==5.23.0' 'peft==0.21.2' 'sentencepiece==0.2.3' 'gguf==0.19.0'
"$folder/env/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder" 'llama-cpp-python==0.3.36'  # has llama.cpp's converters in it
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import subprocess
import sys
import tarfile

import gguf
import peft
import transformers

folder = sys.argv[1]
tree = "llama_cpp_python-0.3.36/vendor/llama.cpp/"
with tarfile.open(f"{folder}/{tree.split('/')[0]}.tar.gz") as archive:
    members = [member for member in archive.getmembers() if member.name.startswith(tree) and member.name.endswith(".py")]
    archive.extractall(folder, members)
config = transformers.LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
config.architectures = ["LlamaForCausalLM"]
config.save_pretrained(f"{folder}/base")


def scales(name, **fields):
    """What the two matrices of a module are multiplied by, in PEFT and in llama.cpp."""
    lora = peft.LoraConfig(r=64, lora_alpha=16, target_modules=["q_proj", "v_proj"], **fields)
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), lora)
    in_peft = {module: layer.scaling["default"] for module, layer in model.base_model.model.model.layers[0].self_attn.named_children() if module in lora.target_modules}
    model.save_pretrained(f"{folder}/{name}")
    command = [sys.executable, f"{folder}/{tree}convert_lora_to_gguf.py", "--base", f"{folder}/base", "--outfile", f"{folder}/{name}.gguf", f"{folder}/{name}"]
    subprocess.run(command, check=True, capture_output=True)
    reader = gguf.GGUFReader(f"{folder}/{name}.gguf")
    rank = {tensor.name: int(tensor.shape[0]) for tensor in reader.tensors if tensor.name.endswith("lora_b")}
    alpha = reader.get_field("adapter.lora.alpha").contents()
    in_llama = {module: alpha / rank[f"blk.0.attn_{module[0]}.weight.lora_b"] for module in in_peft}
    return in_peft, in_llama


plain, stabilised, pattern = scales("plain"), scales("stabilised", use_rslora=True), scales("pattern", alpha_pattern={"q_proj": 64})
print("version:   llama.cpp 0c1e570 (of llama-cpp-python 0.3.36), peft", importlib.metadata.version("peft"))
print("expected:  a converted adapter is applied as strongly as it was trained")
print("behaviour: one that was trained with use_rslora is too weak by the root of its rank, and alpha_pattern is passed over")
print(f"seen:      (in PEFT, in llama.cpp) of rank 64 and alpha 16: plain {plain}, use_rslora {stabilised}, alpha_pattern {pattern}")
sys.exit(not (plain[0] == plain[1] == stabilised[1] == pattern[1] and stabilised[0]["q_proj"] == 2 and pattern[0]["q_proj"] == 1))
PYTHON
