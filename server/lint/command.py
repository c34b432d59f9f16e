"""`ggufphys inspect --template MODEL`: the answer, as text or JSON."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ggufphys.gguf import GGUFFile
from server.engine.model_info import ModelInfo
from server.lint.findings import Finding, Tokenizer, find_all
from server.lint.fixtures import QUESTION, TOOLS
from server.lint.rendering import OF_TEMPLATE, Rendered, Used, render_all
from server.template.chat_template import ATTEMPT_S, ChatTemplate, ChatTemplateError, EndlessTemplateError

SCHEMA_VERSION: Final = 1
WIDTH: Final = 110  # characters of a text that are shown
KEYS: Final = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
TEMPLATE: Final = "tokenizer.chat_template"
TOOL_USE: Final = "tool_use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Linted:
    """One template of a file: its name, empty for the first, what it made of conversations, and what was found."""

    name: str
    source: str
    rendered: dict[str, Rendered] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def lint(gguf: GGUFFile, tokenizer: Tokenizer, *, as_json: bool) -> tuple[str, int]:
    """The answer and the exit code: 1 if a template cannot be used."""
    named, first, of_tools = _named(gguf), gguf.get_str(TEMPLATE, ""), gguf.get_str(f"{TEMPLATE}.{TOOL_USE}", "")
    info = info_of(gguf, tokenizer)
    if first and of_tools and first != of_tools:
        linted = [
            _linted("", replace(info, chat_template=first), gguf, tokenizer, used="without tools"),
            _linted(TOOL_USE, replace(info, chat_template=of_tools), gguf, tokenizer, used="with tools"),
        ]
    else:
        linted = [_linted("", replace(info, chat_template=first or of_tools), gguf, tokenizer, used="always")]
    findings = [*_of_names(named, first, of_tools), *(finding for each in linted for finding in each.findings)]
    answer = _json(gguf, linted, findings) if as_json else _text(gguf, linted, findings)
    return answer, int(any(finding.fault for finding in findings))


def _linted(name: str, info: ModelInfo, gguf: GGUFFile, tokenizer: Tokenizer, *, used: Used) -> Linted:
    try:
        template = ChatTemplate.of(info)
    except ChatTemplateError as error:
        said = f"does not compile: {str(error).removeprefix(OF_TEMPLATE)}"
        if name:
            said += "; serve and llama-server take the first one instead (common/chat.cpp, common_chat_templates_init)"
        syntax = Finding("syntax", said, fault=True, template=name)
        return Linted(name=name, source=info.chat_template, findings=[syntax])
    try:
        replace(template, limit_s=ATTEMPT_S).render([QUESTION], TOOLS if used == "with tools" else {})
    except EndlessTemplateError as error:  # all others would take as long
        endless = Finding("endless", str(error).removeprefix(OF_TEMPLATE), "user", fault=True, template=name)
        return Linted(name=name, source=template.source, findings=[endless])
    except ChatTemplateError:
        pass  # said below
    rendered = render_all(template, used)
    declared = [gguf.get_int(key, -1) for key in KEYS] + [-1 if tokenizer.eos is None else tokenizer.eos]
    findings = [replace(found, template=name) for found in find_all(template, rendered, tokenizer, declared)]
    return Linted(name=name, source=template.source, rendered=rendered, findings=findings)


def _named(gguf: GGUFFile) -> list[str]:
    """The names of templates that the file has beside its first."""
    return [key.removeprefix(f"{TEMPLATE}.") for key in gguf.metadata if key.startswith(f"{TEMPLATE}.")]


def _of_names(named: list[str], first: str, of_tools: str) -> list[Finding]:
    """Which of the file's templates are used, and for what."""
    found = [
        Finding("unused template", f"{TEMPLATE}.{name} is used by neither serve nor llama-server", template=name)
        for name in named
        if name != TOOL_USE
    ]
    if not first and of_tools:
        said = f"the file has no {TEMPLATE} but one of tool_use: serve and llama-server take it for all conversations"
        found.append(Finding("no template", said))
    elif not first:
        said = "no chat template: serve and llama-server write ChatML (common/chat.cpp, CHATML_TEMPLATE_SRC)"
        found.append(Finding("no template", said))
    return found


def info_of(gguf: GGUFFile, tokenizer: Tokenizer) -> ModelInfo:
    """What a template is told of a model; how it is run has no part in that."""

    def text(token: int | None) -> str:
        return "" if token is None else tokenizer.text((token,))

    return ModelInfo(
        name=gguf.name, n_ctx_seq=0, n_ctx_train=0, n_vocab=0, n_embd=0, n_params=0, model_bytes=0,
        chat_template="", bos_text=text(tokenizer.bos), eos_text=text(tokenizer.eos), adds_bos=tokenizer.adds_bos,
    )  # fmt: skip


def _text(gguf: GGUFFile, linted: list[Linted], findings: list[Finding]) -> str:
    chatml = "" if gguf.get_str(TEMPLATE, "") or len(linted) > 1 or _named(gguf) else " (ChatML)"
    lines = []
    for each in linted:
        of = f" {each.name}, for conversations with tools," if each.name else ""
        lines.append(f"{gguf.name}: chat template{of} of {len(each.source):,} characters{chatml}")
        for name, r in each.rendered.items():
            lines += ["", f"{name}", f"  given   {_shown(r.given, r.error)}"]
            if (r.served, r.served_error) != (r.given, r.error):
                lines.append(f"  served  {_shown(r.served, r.served_error)}")
        lines.append("")
    lines.append(f"findings: {len(findings) or 'none'}")
    for f in findings:
        where = ", ".join(filter(None, (f.template, f.fixture)))
        lines.append(f"  {'fault' if f.fault else 'note'}: {f.text}{f' [{where}]' if where else ''}")
    return "\n".join(lines)


def _shown(text: str | None, error: str) -> str:
    """A text in one line, its middle left out where it is long."""
    if text is None:
        return error
    line = json.dumps(text, ensure_ascii=False)
    half = (WIDTH - 5) // 2
    return line if len(line) <= WIDTH else f"{line[:half]} ... {line[-half:]}"


def _json(gguf: GGUFFile, linted: list[Linted], findings: list[Finding]) -> str:
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": gguf.name, "path": str(gguf.location)},
        "has_template": bool(gguf.get_str(TEMPLATE, "") or gguf.get_str(f"{TEMPLATE}.{TOOL_USE}", "")),
        "fixtures": [
            {
                "name": name, "template": each.name, "given": r.given, "error": r.error, "served": r.served,
                "served_error": r.served_error,
            }
            for each in linted
            for name, r in each.rendered.items()
        ],
        "findings": [
            {"kind": f.kind, "text": f.text, "fixture": f.fixture, "fault": f.fault, "template": f.template}
            for f in findings
        ],
    }  # fmt: skip
    return json.dumps(document, indent=1, ensure_ascii=False)
