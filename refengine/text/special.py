"""Which tokens are known by their text, since files do not say what they are for? A table, no logic.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load.
"""

from typing import Final

# Tokens that end a generation
ENDS: Final = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
)  # fmt: skip

# Roles in filling a gap: keys of the file (less _token_id), and texts if they are not there
FIM: Final = (
    (("fim_pre", "prefix"), (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
        "<|prefix|>",
    )),
    (("fim_suf", "suffix"), (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>",
        "<|suffix|>",
    )),
    (("fim_mid", "middle"), (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
        "<|middle|>",
    )),
    (("fim_pad",), ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")),
    (("fim_rep",), ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    (("fim_sep",), ("<|file_sep|>",)),
)  # fmt: skip
FIM_ENDS: Final = frozenset({"fim_pad", "fim_rep", "fim_sep"})

# Always written out, whatever the file calls them
SHOWN: Final = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")

# Beside one of these, </s> is an ordinary token
NORMAL_S: Final = frozenset({"<|tool_response>", "<|plamo:eos|>"})

# Tokens that swallow the spaces before them: text, where to look, what to find there
STRIPS_LEFT: Final = (
    ("<mask>", "pre", "jina-v2-de"),
    ("<mask>", "pre", "jina-v2-es"),
    ("<mask>", "pre", "jina-v2-code"),
    ("<mask>", "arch", "nomic-bert-moe"),
    ("<mask>", "arch", "jina-bert-v3"),
    ("[MASK]", "name", "modern-bert"),
)
