"""Step 3: from weights to the GGUF file that ships: matrices F16, norms F32, and the tokenizer with its merges."""

import argparse
import json
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import torch

from bench.running.program import run_program
from ggufphys.embedded import MODEL
from scripts.train.model import Shape
from scripts.train.prepare import END_OF_TEXT_ID

# PyTorch's names on the left, llama.cpp's on the right.
RENAMED: Final = {
    "attn.q.": "attn_q.",
    "attn.k.": "attn_k.",
    "attn.v.": "attn_v.",
    "attn.output.": "attn_output.",
    "ffn.": "ffn_",
}

DESCRIPTION: Final = (
    "A small llama trained on the Python standard library: it continues Python source. "
    "Made to demonstrate and to measure, not to rely on."
)
# A chat is continued as plain text: the messages' contents, one under the other.
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}\n{% endif %}{% endfor %}"
)


def add_metadata(writer: gguf.GGUFWriter, shape: Shape, corpus: str) -> None:
    """Add what the model is and its hyperparameters."""
    writer.add_type("model")
    writer.add_name("Stdlib 6M")
    writer.add_description(DESCRIPTION)
    writer.add_author("The ggufphys authors")
    writer.add_license("mit")
    writer.add_license_name("MIT (weights); training text under the Python Software Foundation License Version 2")
    writer.add_license_link("https://docs.python.org/3/license.html")
    writer.add_languages(["en"])
    writer.add_tags(["python", "text-generation"])
    writer.add_size_label("5.8M")
    writer.add_dataset_count(1)
    writer.add_dataset_name(0, corpus)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.n_embd_head)
    writer.add_rope_freq_base(shape.rope_freq_base)
    writer.add_layer_norm_rms_eps(shape.rms_epsilon)


def add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    """Add the byte-level BPE of `tokenizer.json`, in the order of its ids."""
    bpe = json.loads(path.read_text())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    types = [gguf.TokenType.NORMAL] * len(tokens)
    types[END_OF_TEXT_ID] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    # One token separates documents: before the first it is the beginning, after the last the end.
    writer.add_bos_token_id(END_OF_TEXT_ID)
    writer.add_eos_token_id(END_OF_TEXT_ID)
    writer.add_pad_token_id(END_OF_TEXT_ID)
    # A prompt may start anywhere in a document, as the windows of training did.
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_weights(writer: gguf.GGUFWriter, weights: dict[str, torch.Tensor]) -> None:
    """Add every tensor under llama.cpp's name; there is no output matrix, the embedding is used again."""
    for torch_name, weight in weights.items():
        name = torch_name
        for theirs, ours in RENAMED.items():
            name = name.replace(f".{theirs}", f".{ours}")
        array = weight.float().numpy()
        writer.add_tensor(name, array if array.ndim == 1 else array.astype(np.float16))


def main() -> None:
    """Write the GGUF file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="the work folder")
    parser.add_argument("--out", type=Path, default=MODEL, help="the GGUF file to write")
    args = parser.parse_args()

    saved = torch.load(args.work / "weights.pt", map_location="cpu", weights_only=True)
    corpus = json.loads((args.work / "corpus.json").read_text())
    writer = gguf.GGUFWriter(args.out, "llama")
    add_metadata(writer, Shape(**saved["shape"]), f"Python {corpus['python']} standard library")
    add_tokenizer(writer, args.work / "tokenizer.json")
    add_weights(writer, saved["weights"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    run_program(main)
