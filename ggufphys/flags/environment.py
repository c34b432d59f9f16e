"""llama-server's environment variables: what they say, as the flags that they stand for.

llama-server reads them before its command line, so that flags win: so do the words that `words` makes of them, put in
front of the others.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parse_ex, get_value_from_env, is_truthy (how they are read),
common_params_parser_init (names).
"""

from collections.abc import Iterator, Mapping
from typing import Final

MODEL: Final = "LLAMA_ARG_MODEL"  # where no model is named; several flags would mean several models
_READ_ELSEWHERE: Final = (MODEL, "LLAMA_ARG_DEVICE")  # ggufphys/flags/devices.py
PREFIX: Final = "LLAMA_ARG_"
_NEGATED: Final = "LLAMA_ARG_NO_"
_TRUE: Final = ("on", "enabled", "true", "1")
_FALSE: Final = ("off", "disabled", "false", "0")

# fmt: off
# Variables whose value is the flag's.
WITH_VALUE: Final[Mapping[str, str]] = {
    "LLAMA_ARG_THREADS": "--threads", "LLAMA_ARG_CTX_SIZE": "--ctx-size",
    "LLAMA_ARG_KV_UNIFIED_PER_SLOT": "--kv-unified-per-slot", "LLAMA_ARG_N_PREDICT": "--predict",
    "LLAMA_ARG_BATCH": "--batch-size", "LLAMA_ARG_UBATCH": "--ubatch-size",
    "LLAMA_ARG_CTX_CHECKPOINTS": "--ctx-checkpoints", "LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT": "--checkpoint-min-step",
    "LLAMA_ARG_CACHE_RAM": "--cache-ram", "LLAMA_ARG_FLASH_ATTN": "--flash-attn", "LLAMA_ARG_TEMPERATURE": "--temp",
    "LLAMA_ARG_TOP_K": "--top-k", "LLAMA_ARG_TOP_P": "--top-p", "LLAMA_ARG_MIN_P": "--min-p",
    "LLAMA_ARG_REPEAT_PENALTY": "--repeat-penalty", "LLAMA_ARG_PRESENCE_PENALTY": "--presence-penalty",
    "LLAMA_ARG_FREQUENCY_PENALTY": "--frequency-penalty", "LLAMA_ARG_POOLING": "--pooling",
    "LLAMA_ARG_ROPE_SCALING_TYPE": "--rope-scaling", "LLAMA_ARG_ROPE_SCALE": "--rope-scale",
    "LLAMA_ARG_ROPE_FREQ_BASE": "--rope-freq-base", "LLAMA_ARG_ROPE_FREQ_SCALE": "--rope-freq-scale",
    "LLAMA_ARG_YARN_ORIG_CTX": "--yarn-orig-ctx", "LLAMA_ARG_YARN_EXT_FACTOR": "--yarn-ext-factor",
    "LLAMA_ARG_YARN_ATTN_FACTOR": "--yarn-attn-factor", "LLAMA_ARG_YARN_BETA_SLOW": "--yarn-beta-slow",
    "LLAMA_ARG_YARN_BETA_FAST": "--yarn-beta-fast", "LLAMA_ARG_CACHE_TYPE_K": "--cache-type-k",
    "LLAMA_ARG_CACHE_TYPE_V": "--cache-type-v", "LLAMA_ARG_DEFRAG_THOLD": "--defrag-thold",
    "LLAMA_ARG_N_PARALLEL": "--parallel", "LLAMA_ARG_MMPROJ": "--mmproj", "LLAMA_ARG_MMPROJ_URL": "--mmproj-url",
    "LLAMA_ARG_IMAGE_MIN_TOKENS": "--image-min-tokens", "LLAMA_ARG_IMAGE_MAX_TOKENS": "--image-max-tokens",
    "LLAMA_ARG_MTMD_BATCH_MAX_TOKENS": "--mtmd-batch-max-tokens", "LLAMA_ARG_VIDEO_FPS": "--video-fps",
    "LLAMA_ARG_VIDEO_TIMESTAMP_INTERVAL": "--video-timestamp-interval",
    "LLAMA_ARG_VIDEO_FFMPEG_DIR": "--video-ffmpeg-dir", "LLAMA_ARG_RPC": "--rpc", "LLAMA_ARG_LOAD_MODE": "--load-mode",
    "LLAMA_ARG_LAZY_MODE": "--lazy-mode", "LLAMA_ARG_NUMA": "--numa",
    "LLAMA_ARG_OVERRIDE_TENSOR": "--override-tensor", "LLAMA_ARG_N_CPU_MOE": "--n-cpu-moe",
    "LLAMA_ARG_N_CPU_FFN": "--n-cpu-ffn", "LLAMA_ARG_N_GPU_LAYERS": "--gpu-layers",
    "LLAMA_ARG_SPLIT_MODE": "--split-mode", "LLAMA_ARG_TENSOR_SPLIT": "--tensor-split",
    "LLAMA_ARG_MAIN_GPU": "--main-gpu", "LLAMA_ARG_FIT": "--fit", "LLAMA_ARG_FIT_TARGET": "--fit-target",
    "LLAMA_ARG_FIT_CTX": "--fit-ctx", "LLAMA_ARG_ALIAS": "--alias", "LLAMA_ARG_TAGS": "--tags",
    "LLAMA_ARG_MODEL_URL": "--model-url", "LLAMA_ARG_DOCKER_REPO": "--docker-repo",
    "LLAMA_ARG_HF_REPO": "--hf-repo", "LLAMA_ARG_HF_FILE": "--hf-file",
    "LLAMA_ARG_HOST": "--host", "LLAMA_ARG_PORT": "--port", "LLAMA_ARG_STATIC_PATH": "--path",
    "LLAMA_ARG_CORS_ORIGINS": "--cors-origins", "LLAMA_ARG_CORS_METHODS": "--cors-methods",
    "LLAMA_ARG_CORS_HEADERS": "--cors-headers", "LLAMA_ARG_API_PREFIX": "--api-prefix",
    "LLAMA_ARG_UI_CONFIG": "--ui-config", "LLAMA_ARG_UI_CONFIG_FILE": "--ui-config-file", "LLAMA_ARG_TOOLS": "--tools",
    "LLAMA_ARG_TOOLS_RUNTIME": "--tools-runtime", "LLAMA_ARG_MCP_SERVERS_CONFIG": "--mcp-servers-config",
    "LLAMA_ARG_MCP_SERVERS_JSON": "--mcp-servers-json", "LLAMA_API_KEY": "--api-key",
    "LLAMA_ARG_API_KEY_FILE": "--api-key-file", "LLAMA_ARG_SSL_KEY_FILE": "--ssl-key-file",
    "LLAMA_ARG_SSL_CERT_FILE": "--ssl-cert-file", "LLAMA_ARG_CHAT_TEMPLATE_KWARGS": "--chat-template-kwargs",
    "LLAMA_ARG_TIMEOUT": "--timeout", "LLAMA_ARG_SSE_PING_INTERVAL": "--sse-ping-interval",
    "LLAMA_ARG_THREADS_HTTP": "--threads-http", "LLAMA_ARG_CACHE_REUSE": "--cache-reuse",
    "LLAMA_ARG_MODELS_DIR": "--models-dir", "LLAMA_ARG_MODELS_PRESET": "--models-preset",
    "LLAMA_ARG_MODELS_MAX": "--models-max", "LLAMA_ARG_THINK": "--reasoning-format",
    "LLAMA_ARG_REASONING": "--reasoning", "LLAMA_ARG_REASONING_EFFORT": "--reasoning-effort",
    "LLAMA_ARG_THINK_BUDGET": "--reasoning-budget", "LLAMA_ARG_THINK_BUDGET_MESSAGE": "--reasoning-budget-message",
    "LLAMA_ARG_CHAT_TEMPLATE": "--chat-template", "LLAMA_ARG_CHAT_TEMPLATE_FILE": "--chat-template-file",
    "LLAMA_ARG_LOG_FILE": "--log-file", "LLAMA_ARG_LOG_COLORS": "--log-colors",
    "LLAMA_ARG_LOG_VERBOSITY": "--verbosity", "LLAMA_ARG_SPEC_DRAFT_HF_REPO": "--spec-draft-hf",
    "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K": "--spec-draft-type-k",
    "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V": "--spec-draft-type-v",
    "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE": "--spec-draft-n-cpu-moe", "LLAMA_ARG_SPEC_DRAFT_N_MAX": "--spec-draft-n-max",
    "LLAMA_ARG_SPEC_DRAFT_N_MIN": "--spec-draft-n-min", "LLAMA_ARG_SPEC_SYNTH_LEN": "--spec-synth-len",
    "LLAMA_ARG_SPEC_SYNTH_RATES": "--spec-synth-rates", "LLAMA_ARG_SPEC_DRAFT_P_SPLIT": "--spec-draft-p-split",
    "LLAMA_ARG_SPEC_DRAFT_P_MIN": "--spec-draft-p-min", "LLAMA_ARG_N_GPU_LAYERS_DRAFT": "--spec-draft-ngl",
    "LLAMA_ARG_SPEC_DRAFT_MODEL": "--spec-draft-model", "LLAMA_ARG_SPEC_TYPE": "--spec-type",
    "MTMD_BACKEND_DEVICE": "--mmproj-device", "LLAMA_ARG_DRAFT_MAX": "--draft", "LLAMA_ARG_DRAFT_MIN": "--draft-min",
}
# Variables that a flag without a value stands for, when they say yes.
SWITCHES: Final[Mapping[str, str]] = {
    "LLAMA_ARG_MLOCK": "--mlock", "LLAMA_ARG_DIO": "--direct-io",  # before there was --load-mode
    "LLAMA_ARG_SWA_FULL": "--swa-full", "LLAMA_ARG_BACKEND_SAMPLING": "--backend-sampling",
    "LLAMA_ARG_NO_HOST": "--no-host", "LLAMA_ARG_CPU_MOE": "--cpu-moe", "LLAMA_ARG_REUSE_PORT": "--reuse-port",
    "LLAMA_ARG_EMBEDDINGS": "--embedding", "LLAMA_ARG_RERANKING": "--rerank",
    "LLAMA_ARG_ENDPOINT_METRICS": "--metrics", "LLAMA_ARG_ENDPOINT_PROPS": "--props", "LLAMA_ARG_OFFLINE": "--offline",
    "LLAMA_ARG_SPEC_DRAFT_CPU_MOE": "--spec-draft-cpu-moe",
}
# Variables that say yes or no, each with a flag of its own.
PAIRS: Final[Mapping[str, tuple[str, str]]] = {
    "LLAMA_ARG_MMAP": ("--mmap", "--no-mmap"),  # before there was --load-mode
    "LLAMA_ARG_KV_UNIFIED": ("--kv-unified", "--no-kv-unified"),
    "LLAMA_ARG_CACHE_IDLE_SLOTS": ("--cache-idle-slots", "--no-cache-idle-slots"),
    "LLAMA_ARG_CONTEXT_SHIFT": ("--context-shift", "--no-context-shift"),
    "LLAMA_ARG_PERF": ("--perf", "--no-perf"),
    "LLAMA_ARG_KV_OFFLOAD": ("--kv-offload", "--no-kv-offload"),
    "LLAMA_ARG_REPACK": ("--repack", "--no-repack"),
    "LLAMA_ARG_CONT_BATCHING": ("--cont-batching", "--no-cont-batching"),
    "LLAMA_ARG_MMPROJ_AUTO": ("--mmproj-auto", "--no-mmproj"),
    "LLAMA_ARG_MMPROJ_OFFLOAD": ("--mmproj-offload", "--no-mmproj-offload"),
    "LLAMA_ARG_CORS_CREDENTIALS": ("--cors-credentials", "--no-cors-credentials"),
    "LLAMA_ARG_UI_MCP_PROXY": ("--ui-mcp-proxy", "--no-ui-mcp-proxy"),
    "LLAMA_ARG_AGENT": ("--agent", "--no-agent"),
    "LLAMA_ARG_UI": ("--ui", "--no-ui"),
    "LLAMA_ARG_CACHE_PROMPT": ("--cache-prompt", "--no-cache-prompt"),
    "LLAMA_ARG_ENDPOINT_SLOTS": ("--slots", "--no-slots"),
    "LLAMA_ARG_MODELS_AUTOLOAD": ("--models-autoload", "--no-models-autoload"),
    "LLAMA_ARG_JINJA": ("--jinja", "--no-jinja"),
    "LLAMA_ARG_REASONING_PRESERVE": ("--reasoning-preserve", "--no-reasoning-preserve"),
    "LLAMA_ARG_SKIP_CHAT_PARSING": ("--skip-chat-parsing", "--no-skip-chat-parsing"),
    "LLAMA_ARG_PREFILL_ASSISTANT": ("--prefill-assistant", "--no-prefill-assistant"),
    "LLAMA_ARG_LOG_JSONL": ("--log-jsonl", "--no-log-jsonl"),
    "LLAMA_ARG_LOG_PREFIX": ("--log-prefix", "--no-log-prefix"),
    "LLAMA_ARG_LOG_TIMESTAMPS": ("--log-timestamps", "--no-log-timestamps"),
    "LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING": ("--spec-draft-backend-sampling", "--no-spec-draft-backend-sampling"),
}
# fmt: on


def words(environ: Mapping[str, str]) -> list[str]:
    """The flags that the environment stands for, to be put in front of a command line's.

    Raises:
        ValueError: a variable that says neither yes nor no.
    """
    return [word for name, value in environ.items() for word in _words(name, value)]


def unknown(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables with llama-server's prefix that it does not have, or not any more."""
    known = {*WITH_VALUE, *SWITCHES, *PAIRS, *_READ_ELSEWHERE}
    return tuple(
        name for name in environ if name.startswith(PREFIX) and not {name, name.replace(_NEGATED, PREFIX, 1)} & known
    )


def _words(name: str, value: str) -> Iterator[str]:
    if name in WITH_VALUE:
        yield f"{WITH_VALUE[name]}={value}"
    elif name in SWITCHES:
        if value in _TRUE:
            yield SWITCHES[name]
    elif name in PAIRS:
        yield PAIRS[name][0 if _truth(name, value) else 1]
    elif name.startswith(_NEGATED) and name.replace(_NEGATED, PREFIX, 1) in PAIRS:
        yield PAIRS[name.replace(_NEGATED, PREFIX, 1)][1]  # whatever its value is


def _truth(name: str, value: str) -> bool:
    if value not in (*_TRUE, *_FALSE):
        raise ValueError(f"{name} is {value!r} in the environment, expected one of {', '.join((*_TRUE, *_FALSE))}")
    return value in _TRUE
