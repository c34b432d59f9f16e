"""llama.cpp's flags that predict nothing here: taken, so that a whole command line can be pasted, and named in a note.

Flags that download or print something and end, or that stand for a model (`--gpt-oss-20b-default`), are not among them.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init (names, and how many values each takes).
"""

import argparse
from collections.abc import Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from ggufphys.flags.parser import Parser

_DESTINATION: Final = "other_flags"

# By the number of values: what is served, sampled, printed or scheduled.
WITHOUT_EFFECT: Final[Mapping[int, str]] = {
    0: """
    --verbose-prompt --display-prompt --no-display-prompt --cache-idle-slots --no-cache-idle-slots --context-shift
    --no-context-shift --perf --no-perf --show-timings --no-show-timings -e --escape --no-escape --prompt-cache-all
    --prompt-cache-ro -sp --special -cnv --conversation -no-cnv --no-conversation -st --single-turn -i --interactive
    -if --interactive-first -mli --multiline-input --in-prefix-bos --warmup --no-warmup --spm-infill --ignore-eos
    -cb --cont-batching -nocb --no-cont-batching --no-mmproj --no-mmproj-auto --check-tensors --reuse-port
    --cors-credentials --no-cors-credentials --ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy
    -ag --agent -no-ag --no-agent --ui --webui --no-ui --no-webui --cache-prompt --no-cache-prompt --metrics --props
    --slots --no-slots --jinja --no-jinja --reasoning-preserve --no-reasoning-preserve --skip-chat-parsing
    --no-skip-chat-parsing --prefill-assistant --no-prefill-assistant --lora-init-without-apply --simple-io
    --log-disable --log-jsonl --no-log-jsonl -v --verbose --log-verbose --offline --log-prefix --no-log-prefix
    --log-timestamps --no-log-timestamps
    """,
    1: """
    -co --color -tb --threads-batch -C --cpu-mask -Cr --cpu-range --cpu-strict --prio --poll -Cb --cpu-mask-batch -Crb
    --cpu-range-batch --cpu-strict-batch --prio-batch --poll-batch -n --predict --n-predict --keep -p --prompt -sys
    --system-prompt -f --file -sysf --system-prompt-file -bf --binary-file -ptc --print-token-count --prompt-cache -r
    --reverse-prompt --in-prefix --in-suffix --samplers -s --seed --sampler-seq --sampling-seq --temp --temperature
    --top-k --top-p --min-p --top-nsigma --top-n-sigma --xtc-probability --xtc-threshold --typical --typical-p
    --repeat-last-n --repeat-penalty --presence-penalty --frequency-penalty --dry-multiplier --dry-base
    --dry-sequence-breaker --dry-allowed-length --dry-penalty-last-n --adaptive-target --adaptive-decay
    --dynatemp-range --dynatemp-exp
    --mirostat --mirostat-lr --mirostat-ent -l --logit-bias --grammar --grammar-file -j --json-schema -jf
    --json-schema-file --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx --yarn-ext-factor
    --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast -dt --defrag-thold --numa -fit --fit -fitt --fit-target -fitc
    --fit-ctx -a --alias --tags -hft --hf-token --embd-normalize --host --port --path --cors-origins --cors-methods
    --cors-headers --api-prefix --ui-config --webui-config --ui-config-file --webui-config-file --tools
    --tools-runtime --mcp-servers-config --mcp-servers-json --api-key --api-key-file --ssl-key-file --ssl-cert-file
    --chat-template-kwargs -to --timeout --sse-ping-interval --threads-http --cache-reuse --slot-save-path
    --media-path --reasoning-format -rea --reasoning --reasoning-effort --reasoning-budget
    --reasoning-budget-message --chat-template --chat-template-file -sps --slot-prompt-similarity
    --sleep-idle-seconds --log-file --log-prompts-dir --log-colors -lv --verbosity --log-verbosity -td
    --threads-draft --spec-draft-threads --spec-draft-n-min --spec-draft-p-split --draft-p-split --spec-draft-p-min
    --draft-p-min
    """,
    2: "--control-vector-layer-range",
}

# What changes memory, or may, in ways that have no rule here.
NOT_PREDICTED: Final[Mapping[int, str]] = {
    0: """
    -bs --backend-sampling --mmproj-auto --embedding --embeddings --rerank --reranking
    --spec-draft-cpu-moe -cmoed --cpu-moe-draft --spec-draft-backend-sampling --no-spec-draft-backend-sampling
    --spec-default
    """,
    1: """
    -lcs --lookup-cache-static -lcd --lookup-cache-dynamic --kv-unified-per-slot -cms --checkpoint-min-step --pooling
    --attention -gan --grp-attn-n -gaw --grp-attn-w -lzm --lazy-mode --override-kv --spec-draft-hf -hfd -hfrd
    --hf-repo-draft --spec-draft-override-tensor -otd --override-tensor-draft --spec-draft-n-cpu-moe
    --spec-draft-ncmoe -ncmoed --n-cpu-moe-draft --spec-draft-device -devd --device-draft --spec-type
    """,
}


def add_other_flags(
    parser: argparse.ArgumentParser, *, but: tuple[str, ...] = (), more: Mapping[int, str] = MappingProxyType({})
) -> None:
    """Take these flags without a line in --help, save those of `but`, which mean something else to a command.

    `more` are a command's own that have no effect.
    """
    declare = partial(_declare, but=but, more=more)
    if isinstance(parser, Parser):
        parser.when_needed(declare)
    else:
        declare(parser)


def _declare(parser: argparse.ArgumentParser, *, but: tuple[str, ...], more: Mapping[int, str]) -> None:
    for table, predicted in ((WITHOUT_EFFECT, True), (NOT_PREDICTED, False), (more, True)):
        for n_values, names in table.items():
            for name in names.split():
                if name not in but:
                    parser.add_argument(
                        name, dest=_DESTINATION, action=_Other, nargs=n_values, predicted=predicted,
                        default=argparse.SUPPRESS, help=argparse.SUPPRESS,
                    )  # fmt: skip


def other_flags_notes(args: argparse.Namespace) -> tuple[str, ...]:
    """What to say of the ones that were given."""
    found: Mapping[str, bool] = getattr(args, _DESTINATION, {})
    without_effect = " ".join(name for name, predicted in found.items() if predicted)
    missed = " ".join(name for name, predicted in found.items() if not predicted)
    return (
        *([f"these flags change nothing here: {without_effect}"] if without_effect else []),
        *([f"not considered, though memory may depend on them: {missed}"] if missed else []),
    )


def unread_notes(args: argparse.Namespace, read: Collection[str]) -> tuple[str, ...]:
    """What to say of flags that were given and are not `read`, by their first names."""
    unread = " ".join(flag for flag in args.flags_given if flag not in read)
    return (f"these flags change nothing here: {unread}",) if unread else ()


def not_considered(namespace: argparse.Namespace, flag: str) -> None:
    """Have a note say of a flag that memory may depend on it."""
    setattr(namespace, _DESTINATION, {**getattr(namespace, _DESTINATION, {}), flag: False})


class _Other(argparse.Action):
    """Collects names, with whether the prediction holds all the same."""

    def __init__(self, *, predicted: bool, **options: Any) -> None:
        super().__init__(**options)
        self.predicted = predicted

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        found = {**getattr(namespace, self.dest, {}), str(option): self.predicted}
        setattr(namespace, self.dest, found)
