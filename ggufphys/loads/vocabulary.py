"""Would llama.cpp read this vocabulary? Tokenizer and pre-tokenizer known, lists of the right types and lengths.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load.
"""

from collections.abc import Iterator
from typing import Final

from ggufphys.gguf import GGUFArray, GGUFFile
from ggufphys.gguf.values import ValueType
from ggufphys.loads.refusal import Refusal
from ggufphys.loads.tokens import TOKENS, check_tokens
from ggufphys.loads.types import TYPE_NAMES, WRONG_TYPE, missing, type_name, wrong_type

SOURCE: Final = "llama.cpp 0c1e570 src/llama-vocab.cpp, llama_vocab::impl::load"

NONE: Final = ("no_vocab", "none")
BPE: Final = ("gpt2", "hybriddna", "whitespace", "gemma4")  # with merges, and a pre-tokenizer for all but gemma4
OTHERS: Final = ("llama", "bert", "t5", "rwkv", "test", "plamo2")
PRE_TOKENIZERS: Final = frozenset((
    "default", "minicpm5", "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
    "lfm2", "jina-v5-nano", "deepseek-llm", "deepseek-coder", "deepseek-v3", "spark2_5", "youtu", "falcon", "mpt",
    "starcoder", "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0",
    "mellum", "modern-bert", "jais-2", "gemma4", "granite-embed-multi-311m", "sarvam-moe", "jina-v1-en",
    "jina-v2-code", "roberta-bpe", "whitespace", "refact", "command-r", "qwen2", "deepseek-r1-qwen", "kormo",
    "f2llmv2", "qwen35", "stablelm2", "olmo", "dbrx", "smaug-bpe", "poro-chat", "chatglm-bpe", "glm4", "glm5",
    "viking", "jais", "tekken", "smollm", "codeshell", "bloom", "gpt3-finnish", "exaone", "exaone4", "exaone-moe",
    "chameleon", "minerva-7b", "megrez", "gpt-4o", "llama4", "kanana2", "talkie", "granite-embed-multi-97m",
    "tiny_aya", "cohere2moe", "superbpe", "trillion", "granite-docling", "bailingmoe", "bailingmoe2", "llada-moe",
    "seed-coder", "hunyuan", "hunyuan-dense", "hy_v4", "joyai-llm", "kimi-k2", "ufakzeka", "grok-2", "afmoe",
    "laguna", "minimax-m2", "solar-open", "mellum2",
))  # fmt: skip
WITHOUT_MERGES: Final = "kimi-k2"

SPECIAL: Final = tuple(
    f"tokenizer.ggml.{name}_token_id"
    for name in (
        "bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "fim_pre", "fim_suf", "fim_mid",
        "fim_pad", "fim_rep", "fim_sep", "prefix", "suffix", "middle",
    )
)  # fmt: skip
FLAGS: Final = (
    "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_sep_token", "tokenizer.ggml.normalizer.lowercase",
    "tokenizer.ggml.normalizer.strip_accents",
)  # fmt: skip
MODEL: Final = "tokenizer.ggml.model"
PRE: Final = "tokenizer.ggml.pre"
MERGES: Final = "tokenizer.ggml.merges"
MANY: Final = 100_000  # tokens
CHARSMAP: Final = "tokenizer.ggml.precompiled_charsmap"


def check_vocabulary(gguf: GGUFFile, arch: str) -> Iterator[Refusal]:
    """Every reason why llama.cpp would not read the file's vocabulary."""
    yield from wrong_type(gguf, MODEL, ValueType.STRING)
    yield from wrong_type(gguf, PRE, ValueType.STRING)
    yield from wrong_type(gguf, "tokenizer.ggml.token_type_count", ValueType.UINT32)
    model = gguf.metadata.get(MODEL)
    if model is None:
        yield missing(MODEL, "the tokenizer's name")
    if not isinstance(model, str):
        return
    if model in NONE:
        yield from wrong_type(gguf, f"{arch}.vocab_size", ValueType.UINT32)
        return
    if model not in (*BPE, *OTHERS):
        yield _unknown(MODEL, "a tokenizer that llama.cpp does not know", model, (*NONE, *BPE, *OTHERS))
        return
    if model in BPE:
        yield from _byte_pairs(gguf, model)
    if model == "t5":
        yield from _charsmap(gguf)
    for key in FLAGS:
        yield from wrong_type(gguf, key, ValueType.BOOL)
    for key in SPECIAL:
        yield from wrong_type(gguf, key, ValueType.UINT32)
    yield from _array_type(gguf, "tokenizer.ggml.suppress_tokens", ValueType.INT32)
    yield from _lists(gguf, model)


def _byte_pairs(gguf: GGUFFile, model: str) -> Iterator[Refusal]:
    pre = gguf.metadata.get(PRE, "")
    if MERGES not in gguf.metadata and (pre != WITHOUT_MERGES or model == "gemma4"):
        yield missing(MERGES, "the merges of byte pairs", SOURCE)
    yield from _array_type(gguf, MERGES, ValueType.STRING)
    if model != "gemma4" and isinstance(pre, str) and pre and pre not in PRE_TOKENIZERS:
        yield _unknown(PRE, "a pre-tokenizer that llama.cpp does not know", pre, sorted(PRE_TOKENIZERS))


def _charsmap(gguf: GGUFFile) -> Iterator[Refusal]:
    """A blob that says in its first four bytes how long its first part is; something must follow that."""
    if CHARSMAP not in gguf.metadata:
        return
    refusals = tuple(_array_type(gguf, CHARSMAP, ValueType.INT8, ValueType.UINT8))
    yield from refusals
    array = gguf.metadata[CHARSMAP]
    if refusals or not isinstance(array, GGUFArray):
        return
    head = bytes(int(array[i]) & 0xFF for i in range(min(len(array), 4)))
    blob = int.from_bytes(head, "little")
    if len(array) < 4 or (blob + 4) % (1 << 64) >= len(array):
        yield Refusal(
            what="the character map is shorter than it says",
            where=CHARSMAP,
            found=f"{len(array):,} bytes" + (f", the first part {blob:,}" if len(array) >= 4 else ""),
            expected="4 bytes with the length of the first part, that part, and more behind it",
            source=SOURCE,
        )


def _lists(gguf: GGUFFile, model: str) -> Iterator[Refusal]:
    """Tokens, and scores and types for each."""
    if TOKENS not in gguf.metadata:
        yield missing(TOKENS, "the list of tokens", SOURCE)
    yield from _array_type(gguf, TOKENS, ValueType.STRING)
    tokens = gguf.metadata.get(TOKENS)
    if not isinstance(tokens, GGUFArray) or tokens.element_type is not ValueType.STRING:
        return
    for name, kinds in (
        ("scores", (ValueType.INT32, ValueType.FLOAT32)),
        ("token_type", (ValueType.INT32,)),
    ):
        key = f"tokenizer.ggml.{name}"
        yield from _array_type(gguf, key, *kinds)
        array = gguf.metadata.get(key)
        if isinstance(array, GGUFArray) and array.element_type in kinds and len(array) < len(tokens):
            yield Refusal(
                what="the list is shorter than that of the tokens",
                where=key,
                found=f"{len(array):,} elements",
                expected=f"at least {len(tokens):,}",
                source=SOURCE,
            )
    if len(tokens) <= MANY:
        yield from check_tokens(gguf, model, tokens)


def check_many_tokens(gguf: GGUFFile) -> Iterator[Refusal]:
    """What `check_vocabulary` leaves out: reasons in so many tokens that reading them takes as long as all the rest."""
    model, tokens = gguf.metadata.get(MODEL), gguf.metadata.get(TOKENS)
    if isinstance(model, str) and model in (*BPE, *OTHERS) and isinstance(tokens, GGUFArray) and len(tokens) > MANY:
        yield from check_tokens(gguf, model, tokens)


def _array_type(gguf: GGUFFile, key: str, *kinds: ValueType) -> Iterator[Refusal]:
    """If the key is there, it is an array of one of these types."""
    value = gguf.metadata.get(key)
    if value is not None and not (isinstance(value, GGUFArray) and value.element_type in kinds):
        yield Refusal(
            what=WRONG_TYPE,
            where=key,
            found=type_name(gguf, key),
            expected=" or ".join(f"arr[{TYPE_NAMES[kind]}]" for kind in kinds),
            source=SOURCE,
        )


def _unknown(key: str, what: str, found: str, known: tuple[str, ...] | list[str]) -> Refusal:
    return Refusal(what=what, where=key, found=repr(found), expected=f"one of {', '.join(known)}", source=SOURCE)


__all__ = ["check_vocabulary"]
