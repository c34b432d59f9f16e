"""`ggufphys inspect --template MODEL`: the answer, as text or JSON."""

import json
from typing import Any, Final

from ggufphys.gguf import GGUFFile
from server.chat_template import CHATML, ChatTemplate, ChatTemplateError
from server.engine.protocol import ModelInfo
from server.lint.findings import Finding, Tokenizer, find_all
from server.lint.rendering import OF_TEMPLATE, Rendered, render_all

SCHEMA_VERSION: Final = 1
WIDTH: Final = 110  # characters of a text that are shown
KEYS: Final = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")


def lint(gguf: GGUFFile, tokenizer: Tokenizer, *, as_json: bool) -> tuple[str, int]:
    """The answer and the exit code: 1 if the template cannot be used."""
    rendered: dict[str, Rendered] = {}
    try:
        template = ChatTemplate.of(_info(gguf, tokenizer))
    except ChatTemplateError as error:
        findings = [Finding("syntax", f"does not compile: {str(error).removeprefix(OF_TEMPLATE)}", fault=True)]
    else:
        rendered = dict(render_all(template))
        declared = [gguf.get_int(key, -1) for key in KEYS] + [-1 if tokenizer.eos is None else tokenizer.eos]
        findings = [*_absence(gguf), *find_all(template, rendered, tokenizer, declared)]
    answer = _json(gguf, rendered, findings) if as_json else _text(gguf, rendered, findings)
    return answer, int(any(finding.fault for finding in findings))


def _template(gguf: GGUFFile) -> str:
    return gguf.get_str("tokenizer.chat_template", "")


def _absence(gguf: GGUFFile) -> list[Finding]:
    if _template(gguf):
        return []
    said = "the file has no chat template: serve and llama-server write ChatML (common/chat.cpp, CHATML_TEMPLATE_SRC)"
    return [Finding("no template", said)]


def _info(gguf: GGUFFile, tokenizer: Tokenizer) -> ModelInfo:
    """What a template is told of a model; how it is run has no part in that."""

    def text(token: int | None) -> str:
        return "" if token is None else tokenizer.text((token,))

    return ModelInfo(
        name=gguf.name, n_ctx_seq=0, n_ctx_train=0, n_vocab=0, n_embd=0, n_params=0, model_bytes=0,
        chat_template=_template(gguf) or CHATML, bos_text=text(tokenizer.bos),
        eos_text=text(tokenizer.eos), adds_bos=tokenizer.adds_bos,
    )  # fmt: skip


def _text(gguf: GGUFFile, rendered: dict[str, Rendered], findings: list[Finding]) -> str:
    template = _template(gguf)
    lines = [f"{gguf.name}: chat template of {len(template or CHATML):,} characters{'' if template else ' (ChatML)'}"]
    for name, r in rendered.items():
        lines += ["", f"{name}", f"  given   {_shown(r.given, r.error)}"]
        if (r.served, r.served_error) != (r.given, r.error):
            lines.append(f"  served  {_shown(r.served, r.served_error)}")
    lines += ["", f"findings: {len(findings) or 'none'}"]
    lines += [f"  {'fault' if f.fault else 'note'}: {f.text}{f' [{f.fixture}]' if f.fixture else ''}" for f in findings]
    return "\n".join(lines)


def _shown(text: str | None, error: str) -> str:
    """A text in one line, its middle left out where it is long."""
    if text is None:
        return error
    line = json.dumps(text, ensure_ascii=False)
    half = (WIDTH - 5) // 2
    return line if len(line) <= WIDTH else f"{line[:half]} ... {line[-half:]}"


def _json(gguf: GGUFFile, rendered: dict[str, Rendered], findings: list[Finding]) -> str:
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": gguf.name, "path": str(gguf.location)},
        "has_template": bool(_template(gguf)),
        "fixtures": [
            {"name": name, "given": r.given, "error": r.error, "served": r.served, "served_error": r.served_error}
            for name, r in rendered.items()
        ],
        "findings": [
            {"kind": f.kind, "text": f.text, "fixture": f.fixture, "fault": f.fault} for f in findings
        ],
    }  # fmt: skip
    return json.dumps(document, indent=1, ensure_ascii=False)
