"""Which builds of llama.cpp were recorded, and what moved between them? Written by `python -m scripts.list_builds`.

RECORDED: builds whose bytes for all small models of the project were recorded, and their commits.
MOVED: architectures whose bytes differ between a record and the one before it.
UNEXPLAINED: architectures for which some predicted row differs from the record.
SINCE: the first record that knows an architecture, of those that the first record does not know.
"""

from collections.abc import Mapping
from typing import Final

# fmt: off
RECORDED: Final[Mapping[int, str]] = {
    8233: "c5a778891",
    8305: "d63aa398d",
    8368: "9e2e2198b",
    8416: "6729d4920",
    8468: "3306dbaef",
    8508: "9f102a140",
    8560: "5c1a7b835",
    8589: "08f21453a",
    8606: "825eb91a6",
    8660: "d00685831",
    8683: "d0a6dfeb2",
    8739: "d132f22fc",
    8771: "873c82561",
    8808: "408225bb1",
    8840: "9e5647aff",
    8881: "0dedb9ef7",
    8943: "5594d1322",
    9014: "d4b0c22f9",
    9102: "7d442abf5",
    9209: "0caf2a1d4",
    9309: "6d57c26ef",
    9445: "af6528e6d",
    9554: "d403f00ec",
    9642: "3686e9d64",
    9733: "f449e0553",
    9756: "d0f9d2e5a",
    9838: "277a105dc",
    9879: "72874f559",
    9982: "99f3dc322",
    10069: "178a6c449",
    10133: "ff067f76d",
    10152: "0324696b8",
    10236: "1464c62d8",
    10330: "687e77892",
    10335: "74ce15741",
    10603: "c060ca974",
    10715: "662a0b012",
    10796: "9a4843cf2",
    10837: "5202104b5",
    10952: "661643e43",
    11067: "932a68e06",
    11227: "ed7ac35e1",
    11312: "0c1e570",
    11327: "552f18f91",
    11352: "4e2713c16",
    11391: "2bc563573",
    11413: "b3daa077a",
    11548: "781dbc5ac",
    11739: "0ce8cd114",
}
MOVED: Final[Mapping[int, frozenset[str]]] = {
    8305: frozenset({
        "bert", "jais", "jina-bert-v2", "modern-bert", "mpt", "neo-bert", "plamo2", "plamo3", "wavtokenizer-dec",
    }),
    8416: frozenset({
        "mistral4",
    }),
    8560: frozenset({
        "cogvlm", "granite", "minicpm", "pangu-embedded", "qwen2", "refact",
    }),
    8660: frozenset({
        "apertus", "bailingmoe2", "bitnet", "chatglm", "cogvlm", "dbrx", "deci", "deepseek2", "ernie4_5",
        "ernie4_5-moe", "falcon", "glm4", "glm4moe", "gpt-oss", "gptneox", "granite", "llama", "minicpm", "minicpm3",
        "mistral3", "nemotron", "openelm", "paddleocr", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo3", "qwen",
        "qwen2", "qwen2moe", "qwen2vl", "refact", "seed_oss", "stablelm", "starcoder2", "t5",
    }),
    8739: frozenset({
        "deci", "gemma4", "gpt-oss", "granite", "granitemoe", "jina-bert-v3", "nomic-bert", "nomic-bert-moe",
        "openelm", "plamo2", "plamo3", "wavtokenizer-dec",
    }),
    8840: frozenset({
        "afmoe", "arcee", "arctic", "baichuan", "bailingmoe", "chameleon", "codeshell", "cohere2", "command-r",
        "deepseek", "dots1", "eurobert", "exaone", "exaone-moe", "exaone4", "gemma", "gemma-embedding", "gemma2",
        "gemma3", "gemma3n", "glm4moe", "grok", "grovemoe", "hunyuan-dense", "hunyuan-moe", "internlm2", "jamba",
        "kimi-linear", "lfm2", "lfm2moe", "llada-moe", "llama", "llama4", "maincoder", "mimo2", "minimax-m2", "olmo",
        "olmo2", "olmoe", "orion", "phi3", "plamo", "qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3next",
        "qwen3vl", "qwen3vlmoe", "rnd1", "smallthinker", "smollm3", "step35", "xverse",
    }),
    8943: frozenset({
        "hunyuan_vl",
    }),
    9209: frozenset({
        "qwen35", "qwen35moe",
    }),
    9309: frozenset({
        "qwen35moe",
    }),
    9445: frozenset({
        "afmoe", "apertus", "arcee", "arctic", "baichuan", "bailingmoe", "bailingmoe2", "bert", "bitnet", "bloom",
        "chameleon", "chatglm", "codeshell", "cogvlm", "cohere2", "command-r", "dbrx", "deci", "deepseek",
        "deepseek2", "deepseek32", "dots1", "dream", "ernie4_5", "ernie4_5-moe", "eurobert", "exaone", "exaone-moe",
        "exaone4", "falcon", "gemma", "gemma-embedding", "gemma2", "gemma3", "gemma3n", "gemma4", "glm-dsa", "glm4",
        "glm4moe", "gpt-oss", "gpt2", "gptneox", "granite", "granitemoe", "grovemoe", "hunyuan-dense", "hunyuan-moe",
        "hunyuan_vl", "internlm2", "jais", "jamba", "jina-bert-v2", "jina-bert-v3", "kimi-linear", "lfm2", "lfm2moe",
        "llada-moe", "llama", "llama-embed", "llama4", "maincoder", "mimo2", "minicpm", "minicpm3", "minimax-m2",
        "mistral3", "mistral4", "modern-bert", "mpt", "nemotron", "neo-bert", "nomic-bert", "nomic-bert-moe", "olmo",
        "olmo2", "olmoe", "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo",
        "plamo2", "plamo3", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe", "qwen3moe",
        "qwen3next", "qwen3vl", "qwen3vlmoe", "refact", "rnd1", "seed_oss", "smallthinker", "smollm3", "stablelm",
        "starcoder", "starcoder2", "step35", "t5", "t5encoder", "talkie", "xverse",
    }),
    9554: frozenset({
        "afmoe", "apertus", "arcee", "arctic", "arwkv7", "baichuan", "bailingmoe", "bailingmoe2", "bert", "bitnet",
        "bloom", "chameleon", "chatglm", "codeshell", "cohere2", "command-r", "dbrx", "deci", "deepseek", "deepseek2",
        "deepseek32", "dots1", "dream", "ernie4_5", "ernie4_5-moe", "eurobert", "exaone", "exaone-moe", "exaone4",
        "falcon", "gemma", "gemma-embedding", "gemma2", "gemma3", "gemma3n", "gemma4", "glm-dsa", "glm4", "glm4moe",
        "gpt-oss", "gpt2", "gptneox", "granite", "granitemoe", "grok", "grovemoe", "hunyuan-dense", "hunyuan-moe",
        "hunyuan_vl", "internlm2", "jais", "jamba", "jina-bert-v2", "jina-bert-v3", "kimi-linear", "lfm2", "lfm2moe",
        "llada-moe", "llama", "llama-embed", "llama4", "maincoder", "mamba", "mimo2", "minicpm", "minicpm3",
        "minimax-m2", "mistral3", "mistral4", "modern-bert", "mpt", "nemotron", "neo-bert", "nomic-bert",
        "nomic-bert-moe", "olmo", "olmo2", "olmoe", "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3",
        "phimoe", "plamo", "plamo2", "plamo3", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe",
        "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "refact", "rnd1", "rwkv6", "rwkv6qwen2", "rwkv7",
        "seed_oss", "smallthinker", "smollm3", "stablelm", "starcoder", "starcoder2", "step35", "t5encoder", "talkie",
        "xverse",
    }),
    9642: frozenset({
        "eagle3", "plamo2", "qwen35moe", "t5", "t5encoder",
    }),
    9838: frozenset({
        "lfm2", "mamba2",
    }),
    9982: frozenset({
        "deepseek32",
    }),
    10069: frozenset({
        "hy_v3",
    }),
    10133: frozenset({
        "glm-dsa", "laguna",
    }),
    10152: frozenset({
        "minimax-m3",
    }),
    10236: frozenset({
        "deepseek2", "deepseek32", "eagle3", "glm-dsa", "hy_v3", "kimi-linear", "mistral4", "nanbeige", "qwen35",
        "qwen35moe", "step35",
    }),
    10330: frozenset({
        "deepseek2", "deepseek32", "exaone-moe", "exaone4", "glm-dsa", "glm4", "glm4moe", "hy_v3", "mimo2",
        "minimax-m3", "mistral4", "qwen35", "qwen35moe", "qwen3next", "qwen3tts", "step35",
    }),
    10603: frozenset({
        "bailingmoe3", "deepseek2", "deepseek32", "dots3note", "glm-dsa", "glm4moe", "granite_swa", "graniteswitch",
        "kimi-k3", "lfm2", "lfm2moe", "minicpm3", "minimax-01", "nemotron_h", "nemotron_h_moe", "plm", "pockettts",
    }),
    10715: frozenset({
        "bailingmoe3", "dflash", "granitehybrid", "mamba2", "nemotron_h", "nemotron_h_moe", "step35",
    }),
    10796: frozenset({
        "deepseek4", "mimo2", "nemotron_h_moe",
    }),
    10837: frozenset({
        "deepseek2-ocr", "hy_v4", "jais2", "llada", "spark2_5",
    }),
    10952: frozenset({
        "bailingmoe2", "deepseek2", "exaone-moe", "exaone4", "glm4", "glm4moe", "kimi-k3", "mistral4",
    }),
    11067: frozenset({
        "cohere2moe", "deepseek2", "hrm_text", "maple", "mellum", "mimo2", "mistral4", "muse-glimmer",
        "nemotron_h_moe", "qwen35moe", "qwen3next", "qwen4exp",
    }),
    11227: frozenset({
        "bailingmoe3", "dflash",
    }),
    11312: frozenset({
        "dflash", "glm5-next",
    }),
    11352: frozenset({
        "glm5-next", "qwen4exp",
    }),
    11391: frozenset({
        "qwen4exp",
    }),
    11413: frozenset({
        "afmoe", "apertus", "arcee", "arctic", "arwkv7", "baichuan", "bailingmoe", "bailingmoe2", "bailingmoe3",
        "bert", "bitnet", "bloom", "chameleon", "chatglm", "codeshell", "cohere2", "cohere2moe", "command-r", "dbrx",
        "deci", "deepseek", "deepseek2", "deepseek2-ocr", "deepseek32", "dots1", "dots3note", "dream", "ernie4_5",
        "ernie4_5-moe", "eurobert", "exaone", "exaone-moe", "exaone4", "falcon", "falcon-h1", "gemma",
        "gemma-embedding", "gemma2", "gemma3", "gemma3n", "gemma4", "glm-dsa", "glm4", "glm4moe", "glm5-next",
        "gpt-oss", "gpt2", "gptneox", "granite", "granite_swa", "granitehybrid", "granitemoe", "grok", "grovemoe",
        "hrm_text", "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3", "hy_v4", "internlm2", "jais", "jais2",
        "jamba", "jina-bert-v2", "jina-bert-v3", "kimi-k3", "kimi-linear", "laguna", "lfm2", "lfm2moe", "llada",
        "llada-moe", "llama", "llama-embed", "llama4", "maincoder", "mamba", "mamba2", "maple", "mellum", "mimo2",
        "minicpm", "minicpm3", "minimax-01", "minimax-m2", "minimax-m3", "mistral3", "mistral4", "modern-bert", "mpt",
        "muse-glimmer", "nanbeige", "nemotron", "nemotron_h", "nemotron_h_moe", "neo-bert", "nomic-bert",
        "nomic-bert-moe", "olmo", "olmo2", "olmoe", "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3",
        "phimoe", "plamo", "plamo2", "plamo3", "plm", "pockettts", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3",
        "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "qwen3tts", "qwen3vl", "qwen3vlmoe", "qwen4exp", "refact",
        "rnd1", "rwkv6", "rwkv6qwen2", "rwkv7", "seed_oss", "smallthinker", "smollm3", "spark2_5", "stablelm",
        "starcoder", "starcoder2", "step35", "t5", "t5encoder", "talkie", "wavtokenizer-dec", "xverse",
    }),
    11548: frozenset({
        "arwkv7", "gemma4", "glm5-next", "hy_v3", "hy_v4", "kimi-k3", "lfm2", "lfm2moe", "plamo2", "qwen3vl",
        "qwen3vlmoe", "qwen4exp",
    }),
    11739: frozenset({
        "bert", "dream", "eurobert", "gemma-embedding", "glm5-next", "jina-bert-v2", "jina-bert-v3", "llada",
        "llada-moe", "llama-embed", "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "t5encoder",
    }),
}
UNEXPLAINED: Final[Mapping[int, frozenset[str]]] = {
    8233: frozenset({
        "qwen2",
    }),
    8305: frozenset({
        "qwen2", "wavtokenizer-dec",
    }),
    8368: frozenset({
        "qwen2", "wavtokenizer-dec",
    }),
    8416: frozenset({
        "qwen2", "wavtokenizer-dec",
    }),
    8468: frozenset({
        "qwen2", "wavtokenizer-dec",
    }),
    8508: frozenset({
        "qwen2", "wavtokenizer-dec",
    }),
    8560: frozenset({
        "wavtokenizer-dec",
    }),
    8589: frozenset({
        "wavtokenizer-dec",
    }),
    8606: frozenset({
        "wavtokenizer-dec",
    }),
    8660: frozenset({
        "deci", "gpt-oss", "openelm", "plamo2", "plamo3", "wavtokenizer-dec",
    }),
    8683: frozenset({
        "deci", "gpt-oss", "openelm", "plamo2", "plamo3", "wavtokenizer-dec",
    }),
    8840: frozenset({
        "lfm2",
    }),
    8881: frozenset({
        "lfm2",
    }),
    8943: frozenset({
        "lfm2",
    }),
    9014: frozenset({
        "lfm2",
    }),
    9102: frozenset({
        "lfm2",
    }),
    9209: frozenset({
        "lfm2",
    }),
    9309: frozenset({
        "lfm2", "qwen35moe",
    }),
    9445: frozenset({
        "deepseek32", "lfm2", "qwen35moe",
    }),
    9554: frozenset({
        "deepseek32", "lfm2", "qwen35moe", "t5", "t5encoder",
    }),
    9642: frozenset({
        "deepseek32", "lfm2",
    }),
    9733: frozenset({
        "deepseek32", "lfm2",
    }),
    9756: frozenset({
        "deepseek32", "lfm2",
    }),
    9838: frozenset({
        "deepseek32",
    }),
    9879: frozenset({
        "deepseek32",
    }),
    10152: frozenset({
        "minimax-m3",
    }),
    10236: frozenset({
        "deepseek32", "glm4moe", "minimax-m3",
    }),
    10330: frozenset({
        "glm4moe",
    }),
    10335: frozenset({
        "glm4moe",
    }),
    11227: frozenset({
        "dflash",
    }),
    11352: frozenset({
        "glm5-next", "qwen4exp",
    }),
    11391: frozenset({
        "glm5-next", "qwen4exp",
    }),
    11413: frozenset({
        "glm5-next", "qwen4exp",
    }),
    11548: frozenset({
        "glm5-next", "hy_v3", "qwen4exp",
    }),
    11739: frozenset({
        "glm5-next", "hy_v3", "qwen4exp",
    }),
}
SINCE: Final[Mapping[str, int]] = {
    "afmoe": 8840,
    "arcee": 8840,
    "arctic": 8840,
    "baichuan": 8840,
    "bailingmoe": 8840,
    "bailingmoe3": 10603,
    "bert": 8305,
    "chameleon": 8840,
    "codeshell": 8840,
    "cogvlm": 8560,
    "cohere2": 8840,
    "cohere2moe": 11067,
    "command-r": 8840,
    "deepseek": 8840,
    "deepseek2-ocr": 10837,
    "deepseek32": 9445,
    "deepseek4": 10796,
    "dflash": 10715,
    "dots1": 8840,
    "dots3note": 10603,
    "eagle3": 9642,
    "eurobert": 8840,
    "exaone": 8840,
    "exaone-moe": 8840,
    "exaone4": 8840,
    "falcon-h1": 9838,
    "gemma": 8840,
    "gemma-embedding": 8840,
    "gemma2": 8840,
    "gemma3": 8840,
    "gemma3n": 8840,
    "gemma4": 8739,
    "glm5-next": 11312,
    "granite": 8560,
    "granite_swa": 10603,
    "granitehybrid": 9838,
    "granitemoe": 8739,
    "graniteswitch": 10603,
    "grok": 8840,
    "grovemoe": 8840,
    "hrm_text": 11067,
    "hunyuan-dense": 8840,
    "hunyuan-moe": 8840,
    "hunyuan_vl": 8943,
    "hy_v3": 10069,
    "hy_v4": 10837,
    "internlm2": 8840,
    "jais": 8305,
    "jais2": 10837,
    "jamba": 8840,
    "jina-bert-v2": 8305,
    "jina-bert-v3": 8739,
    "kimi-k3": 10603,
    "kimi-linear": 8840,
    "laguna": 10133,
    "lfm2": 8840,
    "lfm2moe": 8840,
    "llada": 10837,
    "llada-moe": 8840,
    "llama4": 8840,
    "maincoder": 8840,
    "maple": 11067,
    "mellum": 11067,
    "mimo2": 8840,
    "minimax-01": 10603,
    "minimax-m2": 8840,
    "minimax-m3": 10152,
    "mistral4": 8416,
    "modern-bert": 8305,
    "mpt": 8305,
    "muse-glimmer": 11067,
    "nanbeige": 10236,
    "nemotron_h_moe": 9838,
    "neo-bert": 8305,
    "nomic-bert": 8739,
    "nomic-bert-moe": 8739,
    "olmo": 8840,
    "olmo2": 8840,
    "olmoe": 8840,
    "orion": 8840,
    "pangu-embedded": 8560,
    "plamo": 8840,
    "plamo3": 8305,
    "pockettts": 10603,
    "qwen3": 8840,
    "qwen35": 8840,
    "qwen35moe": 8840,
    "qwen3moe": 8840,
    "qwen3next": 8840,
    "qwen3tts": 10330,
    "qwen3vl": 8840,
    "qwen3vlmoe": 8840,
    "qwen4exp": 11067,
    "refact": 8560,
    "rnd1": 8840,
    "smallthinker": 8840,
    "smollm3": 8840,
    "spark2_5": 10837,
    "step35": 8840,
    "talkie": 9445,
    "wavtokenizer-dec": 8305,
    "xverse": 8840,
}
# fmt: on
