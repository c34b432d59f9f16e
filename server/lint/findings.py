"""What is wrong with a template, by what it renders and by the file's vocabulary?"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from server.api.conversation.probing import probe
from server.lint.fixtures import ANSWER, QUESTION
from server.lint.llama_jinja import lacking
from server.lint.printing import prints_objects
from server.lint.rendering import Rendered
from server.template.chat_template import ChatTemplate

CONTROL: Final = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>\s]{1,40}｜>|<\|\w{1,40}>|<\w{1,40}\|>|<(?:start|end)_of_\w{1,40}>|</?s>"
)
"""What reads like a control token in the vocabularies that are about."""


class Tokenizer(Protocol):
    """What is asked of a file's vocabulary."""

    adds_bos: bool
    bos: int | None
    eos: int | None
    end_tokens: tuple[int, ...]

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> tuple[int, ...]:
        """Tokens of a text."""

    def text(self, tokens: Iterable[int], *, special: bool = True) -> str:
        """The text of tokens."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` is a word or two for programs, `fixture` the conversation that shows it. A `fault`: it cannot be used.

    `template` is the name of that which it is of, empty: the file's first.
    """

    kind: str
    text: str
    fixture: str = ""
    fault: bool = False
    template: str = ""


def find_all(
    template: ChatTemplate, rendered: Mapping[str, Rendered], tokenizer: Tokenizer, declared_ends: Sequence[int]
) -> list[Finding]:
    """All findings, those first that come of the conversations; `declared_ends` are the file's eos and eot."""
    return [
        *_of_conversations(rendered),
        *_of_arguments(rendered),
        *_of_roles(template, rendered),
        *_of_prompts(rendered),
        *_of_bos(template, rendered, tokenizer),
        *_of_control_tokens(rendered, tokenizer),
        *_of_ends(rendered, tokenizer, declared_ends),
        *_of_llama(template, rendered),
    ]


def _of_conversations(rendered: Mapping[str, Rendered]) -> Iterator[Finding]:
    """Which are refused, and which lose what was said."""
    for name, r in rendered.items():
        mended = "; serve shows it all the same" if r.served_whole else ""
        fault = name == "user" and not r.served_whole
        if r.error:
            yield Finding("refused", f"{r.fixture.refused}: {r.error}{mended}", name, fault)
        elif r.lost and r.fixture.lost:
            yield Finding("lost", f"{r.fixture.lost}{mended}", name, fault)


def _of_arguments(rendered: Mapping[str, Rendered]) -> Iterator[Finding]:
    if "call, object" not in rendered:
        return
    as_object, as_string = (rendered[name].given or "" for name in ("call, object", "call, string"))
    if "'city'" in as_object:
        yield Finding("arguments", "writes a call's arguments as Python does, not as JSON", "call, object")
    if r"\"city\"" in as_string:
        mended = "" if r"\"city\"" in (rendered["call, string"].served or "") else "; serve gives it an object"
        yield Finding("arguments", f"quotes arguments that are a string, JSON within JSON{mended}", "call, string")
    if "{'type'" in (rendered["typed content"].given or ""):
        yield Finding("typed content", "writes typed content as a Python list", "typed content")


def _of_roles(template: ChatTemplate, rendered: Mapping[str, Rendered]) -> Iterator[Finding]:
    r, variables = rendered["developer, user"], rendered["user"].fixture.variables

    def attempt(messages: Sequence[Mapping[str, Any]], more: Mapping[str, Any]) -> str | None:
        return template.attempt(messages, {**variables, **more})

    if r.given and "developer" in r.given and not probe(attempt).developer:
        yield Finding(
            "developer", "writes developer as it would any word for a role; serve and llama.cpp make it system "
            "(common/chat.cpp, map_developer_role_to_system)", "developer, user",
        )  # fmt: skip
    spaced = attempt([{**QUESTION, "content": "  padded  "}], {})
    if spaced and "padded" in spaced and "  padded  " not in spaced:
        yield Finding("strips", "strips white space around what is said", "user")


def _of_prompts(rendered: Mapping[str, Rendered]) -> Iterator[Finding]:
    if rendered["user"].given is not None and rendered["user"].given == rendered["no prompt"].given:
        yield Finding(
            "generation prompt", "add_generation_prompt changes nothing: the answer has no beginning of its own", "user"
        )
    if "thinking" in rendered and rendered["thinking"].given == rendered["no thinking"].given:
        yield Finding("thinking", "enable_thinking is named and changes nothing in a first question", "thinking")


def _of_bos(template: ChatTemplate, rendered: Mapping[str, Rendered], tokenizer: Tokenizer) -> Iterator[Finding]:
    if not tokenizer.adds_bos or tokenizer.bos is None:
        return
    bos = template.info.bos_text
    written = replace(template, info=replace(template.info, adds_bos=False))
    raw = written.attempt([QUESTION], rendered["user"].fixture.variables) or ""
    if tokenizer.bos in tokenizer.tokenize(raw.removeprefix(bos))[1:]:
        yield Finding("BOS", f"{bos} is written where no server removes it, and the tokenizer adds one", "user")
    elif bos and raw.startswith(bos):
        yield Finding(
            "BOS", f"{bos} is written, and the tokenizer adds one: serve and llama-server remove it (common/chat.cpp, "
            "common_chat_template_direct_apply_impl), whoever tokenizes the text himself has it twice", "user",
        )  # fmt: skip


def _of_control_tokens(rendered: Mapping[str, Rendered], tokenizer: Tokenizer) -> Iterator[Finding]:
    """Control tokens that the vocabulary lacks: they become ordinary words, which the model was hardly trained on."""
    seen = dict.fromkeys(name for r in rendered.values() for name in CONTROL.findall(r.served or r.given or ""))
    for name in seen:
        tokens = tokenizer.tokenize(name, add_special=False)
        if len(tokens) > 1:
            yield Finding("control token", f"{name} is no token of this vocabulary: it is {len(tokens)} tokens of text")


def _of_ends(rendered: Mapping[str, Rendered], tokenizer: Tokenizer, declared_ends: Sequence[int]) -> Iterator[Finding]:
    """Does a turn of the assistant end with a token that ends a generation?"""
    _, answer, behind = (rendered["several turns"].given or "").partition(ANSWER)
    if not answer:
        return
    tokens = tokenizer.tokenize(behind.partition("And in spring?")[0], add_special=False)
    end = next((token for token in tokens if token in tokenizer.end_tokens), None)
    if end is None:
        shown = CONTROL.match(behind.lstrip())
        what = f"with {shown[0]}, which ends no generation" if shown else "without a token that ends a generation"
        yield Finding("end of turn", f"the assistant's turn ends {what}", "several turns")
    elif end not in declared_ends:
        yield Finding(
            "end of turn", f"{tokenizer.text((end,))} is neither eos nor eot of the file: llama.cpp knows it by its "
            "text (src/llama-vocab.cpp, llama_vocab::impl::load), other engines may not stop", "several turns",
        )  # fmt: skip


def _of_llama(template: ChatTemplate, rendered: Mapping[str, Rendered]) -> Iterator[Finding]:
    missing = lacking(template.template.environment, template.source)
    yield from (Finding("llama.cpp", f"llama.cpp's Jinja {what}") for what in missing)
    if "tools" in rendered and prints_objects(template, rendered["tools"].fixture):
        yield Finding(
            "llama.cpp", "prints objects or lists as Python shows them: llama.cpp's Jinja prints nothing of an object, "
            "and of a list its items in a row (common/jinja/runtime.h, gather_string_parts_recursive)", "tools",
        )  # fmt: skip
