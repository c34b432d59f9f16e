"""llama-server's flags that say what fields are when a request leaves them out, and those that are refused by name.

Refused is what would change the answers, or who can read them, and is not done here. What has no effect is taken and
named (`ggufphys/flags/others.py`).

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init; tools/server/server-task.cpp, task_params (fields).
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ggufphys.units import parse_json, read_text
from server.config import THOUGHTS
from server.engine.model_info import POOLINGS

Parse = Callable[[str], Any]

PRINTS: Final = "--version --usage -cl --cache-list --completion-bash --list-devices"
# Flags that stand for a model on a hub.
PRESETS: Final = (
    "--embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default --fim-qwen-7b-default --fim-qwen-7b-spec "
    "--fim-qwen-14b-spec --fim-qwen-30b-default --gpt-oss-20b-default --gpt-oss-120b-default "
    "--vision-gemma-4b-default --vision-gemma-12b-default"
)

LISTED: Final = ("stop", "dry_sequence_breakers")  # fields that each use of a flag adds to
MERGED: Final = ("chat_template_kwargs",)  # fields that several flags add to; None takes out what an earlier one said
THINKS: Final = {
    **dict.fromkeys(("on", "enabled", "true", "1"), True), **dict.fromkeys(("off", "disabled", "false", "0"), False),
    **dict.fromkeys(("auto", "-1")),
}  # fmt: skip


def add_field_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that set fields' defaults, and the refused ones; `field_defaults` and `refused` read them."""
    for names, (field, parse) in FIELDS.items():
        if names in OF_VECTORS:
            continue
        parser.add_argument(
            *names.split(), dest="field_defaults", action=_Field, field=field, parse=parse,
            default=argparse.SUPPRESS, help=argparse.SUPPRESS,
        )  # fmt: skip
    for names, (field, value) in SWITCHES.items():
        parser.add_argument(
            *names.split(), dest="field_defaults", action=_Field, field=field, parse=lambda _, value=value: value,
            nargs=0, default=argparse.SUPPRESS, help=argparse.SUPPRESS,
        )  # fmt: skip
    for why, names in REFUSED.items():
        for name in names.split():
            parser.add_argument(
                name, dest="refused_flags", action=_Refused, why=why, nargs=_N_VALUES.get(name, 1),
                default=argparse.SUPPRESS, help=argparse.SUPPRESS,
            )  # fmt: skip


def add_vector_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the flags of servers that give vectors, of which some are fields' defaults, too."""
    group.add_argument(
        "--embedding", "--embeddings", dest="embeddings", action="store_true", default=argparse.SUPPRESS,
        help="vectors of texts and nothing else, without a cache for text (encoders are always run so)",
    )  # fmt: skip
    group.add_argument(
        "--rerank", "--reranking", dest="field_defaults", action=_Rerank, nargs=0, field="pooling",
        parse=lambda _: "rank", default=argparse.SUPPRESS, help="the same, scores of documents: --pooling rank",
    )  # fmt: skip
    for name, (metavar, what) in OF_VECTORS.items():
        field, parse = FIELDS[name]
        group.add_argument(
            name, dest="field_defaults", action=_Field, field=field, parse=parse, metavar=metavar,
            default=argparse.SUPPRESS, help=what,
        )  # fmt: skip


def field_defaults(args: argparse.Namespace) -> dict[str, Any]:
    """Fields and their values, for requests without them."""
    found: dict[str, Any] = getattr(args, "field_defaults", {})
    return found


def flag_of(field: str) -> str:
    """The flag that sets a field's default, by its long name; empty if none does."""
    found = next((names for names, (each, _) in FIELDS.items() if each == field), "")
    return next((name for name in found.split() if name.startswith("--")), "")


def refused(args: argparse.Namespace) -> None:
    """Raise ValueError for flags that are not done here, with the reason."""
    found: Mapping[str, str] = getattr(args, "refused_flags", {})
    if found:
        raise ValueError("; ".join(f"{flag} is not supported: {why}" for flag, why in found.items()))


class _Field(argparse.Action):
    """Collects a field's default."""

    def __init__(self, *, field: str, parse: Parse, **options: Any) -> None:
        super().__init__(**options)
        self.field = field
        self.parse = parse

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            value = self.parse(values)
        except (ValueError, OSError) as error:
            raise argparse.ArgumentError(self, f"{values!r:.40}: {error}") from None
        found = getattr(namespace, self.dest, {})
        if self.field in MERGED:
            both = {**found.get(self.field, {}), **value}
            value = {name: each for name, each in both.items() if each is not None}
        if self.field in LISTED:
            value = [*found.get(self.field, ()), *value]
        setattr(namespace, self.dest, {**found, self.field: value})


class _Rerank(_Field):
    """`--rerank`: scores of documents, and no text is generated."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, namespace, values, option_string)
        namespace.embeddings = True


class _Refused(argparse.Action):
    """Collects a refused flag with the reason."""

    def __init__(self, *, why: str, **options: Any) -> None:
        super().__init__(**options)
        self.why = why

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, {**getattr(namespace, self.dest, {}), str(option_string): self.why})


def _names(text: str) -> list[str]:
    return [name for name in text.split(";") if name]


def _breaker(text: str) -> list[str]:
    return [] if text == "none" else [text]


def _pooling(text: str) -> str:
    if text not in POOLINGS:
        raise ValueError(f"expected one of {', '.join(POOLINGS)}")
    return text


def _thinks(text: str) -> dict[str, Any]:
    """Source: llama.cpp 0c1e570 common/arg.cpp, is_truthy, is_falsey, is_autoy."""
    if text not in THINKS:
        raise ValueError("expected on, off or auto")
    return {"enable_thinking": THINKS[text]}


def _effort(text: str) -> dict[str, Any]:
    return {"reasoning_effort": None if text == "default" else text}


def _budget(text: str) -> int:
    value = int(text)
    if value < -1:
        raise ValueError("expected -1 (any number of tokens) or more")
    return value


def _format(text: str) -> str:
    if text not in THOUGHTS:
        raise ValueError(f"expected one of {', '.join(THOUGHTS)}")
    return text


def _object(text: str) -> dict[str, Any]:
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def _text_of(path: str) -> str:
    return read_text(Path(path))


def _object_of(path: str) -> dict[str, Any]:
    return _object(_text_of(path))


# fmt: off
FIELDS: Final[Mapping[str, tuple[str, Parse]]] = {
    "--temp --temperature":             ("temperature", float),
    "--top-k":                          ("top_k", int),
    "--top-p":                          ("top_p", float),
    "--min-p":                          ("min_p", float),
    "--top-nsigma --top-n-sigma":       ("top_n_sigma", float),
    "--xtc-probability":                ("xtc_probability", float),
    "--xtc-threshold":                  ("xtc_threshold", float),
    "--typical --typical-p":            ("typical_p", float),
    "--repeat-last-n":                  ("repeat_last_n", int),
    "--repeat-penalty":                 ("repeat_penalty", float),
    "--presence-penalty":               ("presence_penalty", float),
    "--frequency-penalty":              ("frequency_penalty", float),
    "--dry-multiplier":                 ("dry_multiplier", float),
    "--dry-base":                       ("dry_base", float),
    "--dry-allowed-length":             ("dry_allowed_length", int),
    "--dry-penalty-last-n":             ("dry_penalty_last_n", int),
    "--dry-sequence-breaker":           ("dry_sequence_breakers", _breaker),
    "--adaptive-target":                ("adaptive_target", float),
    "--adaptive-decay":                 ("adaptive_decay", float),
    "--dynatemp-range":                 ("dynatemp_range", float),
    "--dynatemp-exp":                   ("dynatemp_exponent", float),
    "--mirostat":                       ("mirostat", int),
    "--mirostat-lr":                    ("mirostat_eta", float),
    "--mirostat-ent":                   ("mirostat_tau", float),
    "--samplers":                       ("samplers", _names),
    "--sampler-seq --sampling-seq":     ("samplers", str),
    "-s --seed":                        ("seed", int),
    "-n --predict --n-predict":         ("n_predict", int),
    "--grammar":                        ("grammar", str),
    "--grammar-file":                   ("grammar", _text_of),
    "-j --json-schema":                 ("json_schema", _object),
    "-jf --json-schema-file":           ("json_schema", _object_of),
    "--chat-template-kwargs":           ("chat_template_kwargs", _object),
    "--reasoning-effort":               ("chat_template_kwargs", _effort),
    "-rea --reasoning":                 ("chat_template_kwargs", _thinks),
    "--reasoning-budget":               ("reasoning_budget_tokens", _budget),
    "--reasoning-budget-message":       ("reasoning_budget_message", str),
    "--reasoning-format":               ("reasoning_format", _format),
    "-r --reverse-prompt":              ("stop", lambda text: [text]),
    "--pooling":                        ("pooling", _pooling),
    "--embd-normalize":                 ("embd_normalize", int),
}
OF_VECTORS: Final[Mapping[str, tuple[str, str]]] = {
    "--pooling": ("TYPE", "how a text's tokens become one vector: none, mean, cls, last, rank (default: the file's)"),
    "--embd-normalize": (
        "N", "by which norm vectors are scaled to length 1 (2: Euclidean, the default; -1: not; 0: to 32760 at most)",
    ),
}
SWITCHES: Final[Mapping[str, tuple[str, Any]]] = {
    "--ignore-eos":                     ("ignore_eos", True),
    "--cache-prompt":                   ("cache_prompt", True),
    "--no-cache-prompt":                ("cache_prompt", False),
    "--reasoning-preserve":             ("chat_template_kwargs", {"preserve_reasoning": True}),
    "--no-reasoning-preserve":          ("chat_template_kwargs", {"preserve_reasoning": False}),
}
REFUSED: Final[Mapping[str, str]] = {
    "encryption is for a proxy in front (docs/deployment.md)":
        "--ssl-key-file --ssl-cert-file",
    "it would change what the model computes; convert the file with other metadata instead":
        "--override-kv --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx "
        "--yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast",
    "no files are read for clients; they send them as data: URIs":
        "--media-path",
    "control vectors are not served here":
        "--control-vector --control-vector-scaled --control-vector-layer-range",
    "nothing is downloaded here; name a file":
        f"-mmu --mmproj-url -mu --model-url -dr --docker-repo {PRESETS}",
    "llama-server has it no more; it is --spec-draft-n-max now":
        "--draft --draft-n --draft-max",
    "llama-server has it no more; it is --spec-draft-n-min now":
        "--draft-min --draft-n-min",
    "llama-server has it no more; it is --spec-ngram-simple-size-n, -size-m and -min-hits now":
        "--spec-ngram-size-n --spec-ngram-size-m --spec-ngram-min-hits",
    "models are named one by one: -m a=a.gguf -m b=b.gguf":
        "--models-dir --models-preset",
    "send logit_bias in requests":
        "-l --logit-bias",
    "it prints something and ends; so do `ggufphys --version`, `ggufphys inspect` (models) and `ggufphys doctor`":
        PRINTS,
}
# By the number of values: kinds of speculation and caches that are not had here, videos, and images encoded together.
WITHOUT_EFFECT: Final[Mapping[int, str]] = {
    0: "--models-autoload --no-models-autoload",
    1: """
    -mmdev --mmproj-device -ctxcp --ctx-checkpoints --swa-checkpoints -cram --cache-ram
    --mtmd-batch-max-tokens --video-fps --video-timestamp-interval --video-ffmpeg-dir --models-max
    --spec-draft-threads-batch -tbd --threads-batch-draft --spec-draft-cpu-mask -Cd --cpu-mask-draft
    --spec-draft-cpu-range -Crd --cpu-range-draft --spec-draft-cpu-strict --cpu-strict-draft --spec-draft-prio
    --prio-draft --spec-draft-poll --poll-draft --spec-draft-cpu-mask-batch -Cbd --cpu-mask-batch-draft
    --spec-draft-cpu-strict-batch --cpu-strict-batch-draft --spec-draft-prio-batch --prio-batch-draft
    --spec-draft-poll-batch --poll-batch-draft --spec-synth-len --spec-synth-rates --spec-ngram-mod-n-min
    --spec-ngram-mod-n-max --spec-ngram-mod-n-match --spec-ngram-map-k-size-n --spec-ngram-map-k-size-m
    --spec-ngram-map-k-min-hits --spec-ngram-map-k4v-size-n --spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-min-hits
    """,
}
_N_VALUES: Final[Mapping[str, int]] = {
    "--control-vector-layer-range": 2, **dict.fromkeys(f"{PRINTS} {PRESETS}".split(), 0),
}
# fmt: on
