"""Which expressions cut a text for which `tokenizer.ggml.pre`? A table: facts of the tokenizers, no logic.

Names that share a row are tokenizers that are cut alike.

Source: llama.cpp 0c1e570 src/llama-vocab.cpp, llm_tokenizer_bpe (expressions), llama_vocab::impl::load (names, flags);
src/unicode.cpp, unicode_regex_split_custom_* (what some of them are replaced by, here written as expressions again).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTokenizer:
    """How a kind of byte-level BPE treats a text before merging."""

    names: tuple[str, ...]
    expressions: tuple[str, ...]  # one after the other, each cutting what those before left
    ignore_merges: bool = False  # a piece that is a token by itself is that token
    adds_bos: bool = False  # unless the file says otherwise
    has_default_bos: bool = True
    byte_level: bool = True  # else spaces are written as "▁", and unknown bytes are tokens like <0x0A>


_CONTRACTION = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SIGNS_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = "|".join((_CONTRACTION, _WORD, r"\p{N}{1,3}", _SIGNS, _BLANKS))
_QWEN2 = "|".join((_CONTRACTION, _WORD, r"\p{N}", _SIGNS, _BLANKS))
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_LINES = r"[^\n]+|[\n]+"
# Digits in threes from the right; what stands before a number belongs to the number's first piece
_THREES = r"[^\p{N}]*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"

_DEEPSEEK3_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+"
)
_HAN_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_HAN_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
# Words in upper and lower case apart: letters but a-z, then letters but A-Z, one of the two at least once
_UPPER, _LOWER = r"(?:(?=[\p{L}])[^a-z])", r"(?:(?=[\p{L}])[^A-Z])"
_UPPER_M, _LOWER_M = r"(?:(?=[\p{L}\p{M}])[^a-z])", r"(?:(?=[\p{L}\p{M}])[^A-Z])"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_CASED = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

_TEKKEN = "|".join(
    (f"{_LEAD}{_UPPER}*{_LOWER}+", f"{_LEAD}{_UPPER}+{_LOWER}*", r"\p{N}", _SIGNS_SLASH, _BLANKS),
)
_GPT4O = "|".join(
    (
        f"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTION}?",
        f"{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTION}?",
        r"\p{N}{1,3}",
        _SIGNS_SLASH,
        _BLANKS,
    )
)
_GRANITE_EMBED = "|".join(
    (
        f"{_LEAD}{_UPPER_M}*{_LOWER_M}+{_CONTRACTION}?",
        f"{_LEAD}{_UPPER_M}+{_LOWER_M}*{_CONTRACTION}?",
        r"\p{N}{1,3}",
        _SIGNS_SLASH,
        _BLANKS,
    )
)
_CASED_WORDS = "|".join(
    (
        f"{_LEAD}{_CASED[0]}*{_CASED[1]}+{_CONTRACTION}?",
        f"{_LEAD}{_CASED[0]}+{_CASED[1]}*{_CONTRACTION}?",
    )
)
_KIMI_LETTERS = r"(?:(?!\p{Han})\p{L})+"
_DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽ"
    "ᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-"
    "Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-"
    "ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)

TABLE: Final = (
    PreTokenizer(
        names=("", "default"),
        expressions=(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ),
    PreTokenizer(
        names=(
            "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
        ),
        expressions=(_LLAMA3,),
        ignore_merges=True,
        adds_bos=True,
    ),
    PreTokenizer(names=("dbrx", "smaug-bpe"), expressions=(_LLAMA3,)),
    PreTokenizer(names=("chatglm-bpe",), expressions=(_LLAMA3,), has_default_bos=False),
    PreTokenizer(names=("glm4", "glm5"), expressions=(_LLAMA3,), has_default_bos=False, ignore_merges=True),
    PreTokenizer(
        names=("minicpm5",),
        expressions=(r"\p{N}{1,3}", "|".join((_CONTRACTION, _WORD, r"\p{N}+", _SIGNS, _BLANKS))),
        ignore_merges=True,
    ),
    PreTokenizer(
        names=("jais-2",),
        expressions=(
            "|".join(
                (
                    _CONTRACTION, _WORD, r"\p{N}{1,3}", _SIGNS, r"\s*[\r\n]+",
                    *(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)), r"\s{1,2}(?!\S)", r"\s{1}",
                )
            ),
        ),
    ),
    PreTokenizer(
        names=("deepseek-llm",),
        expressions=(
            r"[\r\n]",
            rf"\s?[{_DEEPSEEK_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+\Z",
            _HAN_HANGUL,
            r"\p{N}+",
        ),
    ),
    PreTokenizer(
        names=("deepseek-coder",),
        expressions=(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_HANGUL, r"\p{N}"),
    ),
    PreTokenizer(
        names=("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
        expressions=(r"\p{N}{1,3}", _HAN_KANA, rf"{_DEEPSEEK3_WORDS}[\r\n]*|{_BLANKS}"),
    ),
    PreTokenizer(
        names=("spark2_5",),
        expressions=(r"\p{N}{1,3}", _HAN_KANA, rf"{_DEEPSEEK3_WORDS}|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"),
    ),
    PreTokenizer(names=("afmoe",), expressions=(_THREES, _ASIAN, rf"{_DEEPSEEK3_WORDS}[\r\n]*|{_BLANKS}")),
    PreTokenizer(
        names=("youtu",),
        expressions=(
            "[\uac00-\ud7a3\u3131-\u318e]+"
            "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
            "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            "|".join((_CASED_WORDS, r"\p{N}", _SIGNS_SLASH, _BLANKS)),
        ),
        ignore_merges=True,
    ),
    PreTokenizer(
        names=("tiny_aya", "cohere2moe"),
        expressions=(_THREES, "|".join((_CASED_WORDS, r"\p{N}{1,3}", _SIGNS_SLASH, _BLANKS))),
    ),
    PreTokenizer(names=("falcon",), expressions=(r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    PreTokenizer(
        names=("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"),
        expressions=(r"\p{N}", _GPT2),
    ),
    PreTokenizer(
        names=(
            "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
            "modern-bert", "jina-v1-en", "jina-v2-code", "roberta-bpe", "mpt", "olmo", "jais", "trillion",
            "granite-docling", "exaone4",
        ),
        expressions=(_GPT2,),
    ),
    PreTokenizer(
        names=(
            "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2",
        ),
        expressions=(_QWEN2,),
    ),
    PreTokenizer(
        names=("qwen35",),
        expressions=(
            "|".join(
                (
                    _CONTRACTION, r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"\p{N}", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
                    _BLANKS,
                )
            ),
        ),
    ),
    PreTokenizer(names=("ufakzeka",), expressions=("|".join((_WORD, r"\p{N}", _SIGNS, _BLANKS)),)),
    PreTokenizer(names=("laguna",), expressions=(_LINES, _QWEN2)),
    PreTokenizer(names=("poro-chat", "bloom", "gpt3-finnish"), expressions=(_BLOOM,)),
    PreTokenizer(names=("viking",), expressions=(_BLOOM, r"\p{N}")),
    PreTokenizer(names=("tekken",), expressions=(_TEKKEN,), ignore_merges=True, adds_bos=True),
    PreTokenizer(names=("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), expressions=(_GPT4O,)),
    PreTokenizer(names=("granite-embed-multi-97m",), expressions=(_GRANITE_EMBED,), ignore_merges=True),
    PreTokenizer(
        names=("chameleon",),
        expressions=(
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`\{-\~]",
            _GPT2,
        ),
        adds_bos=True,
    ),
    PreTokenizer(
        names=("kimi-k2",),
        expressions=(
            "|".join(
                (
                    r"\p{Han}+",
                    rf"[^\r\n\p{{L}}\p{{N}}]?{_KIMI_LETTERS}{_CONTRACTION}?",
                    r"\p{N}{1,3}",
                    _SIGNS,
                    _BLANKS,
                )
            ),
        ),
    ),
    PreTokenizer(names=("superbpe",), expressions=(r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    PreTokenizer(
        names=("bailingmoe", "bailingmoe2", "llada-moe"),
        expressions=(
            "|".join(
                (
                    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", _WORD, r"\p{N}", _SIGNS,
                    r"\s*[\r\n]|\s+(?!\S)|\s+",
                )
            ),
        ),
    ),
    PreTokenizer(
        names=("seed-coder",),
        expressions=("|".join((_CONTRACTION, _WORD, r"\p{N}{1}", r" ?[^\s\p{L}\p{N}\r\n]+", _BLANKS)),),
    ),
    PreTokenizer(
        names=("exaone-moe",),
        expressions=(
            "|".join(
                (
                    _CONTRACTION, r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+", r"\p{N}",
                    r" ?[^\s\p{L}\p{N}]+[\r\n/]?", r"\s*[\r\n]|\s+(?!\S)|\s+",
                )
            ),
        ),
    ),
    # adds BOS whatever the file says: vocab.py
    PreTokenizer(
        names=("gemma4", "granite-embed-multi-311m"), expressions=(_LINES,), adds_bos=True, byte_level=False,
    ),
    PreTokenizer(names=("sarvam-moe",), expressions=(_LINES,), byte_level=False),
)  # fmt: skip

PRE_TOKENIZERS: Final[Mapping[str, PreTokenizer]] = {name: row for row in TABLE for name in row.names}
