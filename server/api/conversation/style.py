"""How does a model write calls of tools? Marks around names and arguments, and what the arguments are written in."""

from dataclasses import dataclass
from typing import Final, Literal

from server.api.conversation.recipients import Recipients

Mark = tuple[str, ...]
"""Texts; between each two stands what is another in each call: an id, a number, a type."""

Notation = Literal["json", "tagged", "gemma", "python"]
"""What arguments are written in: JSON, tags around each, Gemma 4's braces, Python's keywords."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Around each argument: `key`, a name, `value`, a value, `end`. Strings stand there as they are, others as JSON.

    `closes`: behind `end` come the name again and this; then members of objects and arrays stand in such tags, too.
    """

    key: str
    value: Mark
    end: str
    closes: str = ""

    def end_of(self, key: str) -> str:
        """What ends the value of a key."""
        return f"{self.end}{key}{self.closes}" if self.closes else self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """`section[0]`, calls with `between` them, `section[1]`. A call: `open`, a name, `named`, arguments, `close`.

    Without a section each call stands for itself. `whole`: a call is one JSON object with the name and the arguments in
    it, whose keys are in the marks. `tags`: around arguments, in that notation. `ends_thoughts`: a call may begin while
    the model still thinks. `channels`: a call is a message on a channel, to the function; `to`: a message to the
    function, and answers are messages, too.
    """

    open: Mark
    named: Mark
    close: Mark
    section: tuple[str, str] = ("", "")
    between: str = "\n"
    whole: bool = False
    notation: Notation = "json"
    tags: Tags | None = None
    ends_thoughts: bool = False
    channels: bool = False
    to: Recipients | None = None

    @property
    def front(self) -> str:
        """What stands in front of a call's object, or of its name."""
        return (self.open[0].partition("{")[0] if self.whole else self.open[0]).strip()

    @property
    def begin(self) -> str:
        """What calls are told from words by; empty: nothing, the whole answer is one."""
        begin = (self.section[0] or self.front).strip()
        return begin.rstrip("[ \n") if self.whole else begin

    @property
    def begins(self) -> tuple[str, ...]:
        """What a call may begin with; models leave away what should stand around all calls, or in front of each."""
        every = (*self.begin.split()[:1], *self.front.split()[:1], self.short)
        return tuple(dict.fromkeys(filter(None, every)))

    @property
    def short(self) -> str:
        """The last tag in front of a name, where there are several."""
        words = self.open[0].split()
        return words[-1] if len(words) > 1 and not self.whole and words[-1].startswith("<") else ""

    @property
    def behind_names(self) -> tuple[str, ...]:
        """What may stand behind a name."""
        if self.named[0].strip():
            return self.named
        return (self.tags.key, self.close[0]) if self.tags else ("{",)

    @property
    def example(self) -> str:
        """A call, with dots for what is said in it."""
        match self.notation:
            case "tagged" if self.tags is not None:
                arguments = f"{self.tags.key}...{'...'.join(self.tags.value)}...{self.tags.end_of('...')}"
            case "python":
                arguments = "...=..."
            case _:
                arguments = "{...}"
        call = f"{'0'.join(self.open)}...{'0'.join(self.named)}{arguments}{'0'.join(self.close)}"
        return f"{self.to.header('...') if self.to else ''}{self.section[0]}{call}{self.section[1]}"

    @property
    def is_by_name(self) -> bool:
        """Are arguments in an object under the function's name?"""
        return self.whole and self.named[0].startswith('":')

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that are written around names and arguments."""
        tags = (self.tags.key, *self.tags.value, self.tags.end, self.tags.closes) if self.tags else ()
        quote = (QUOTE,) if self.notation == "gemma" else ()
        to = self.to.marks if self.to else ()
        every = (*to, *self.section, self.between, *self.open, *self.named, *self.close, *tags, *quote)
        return tuple(dict.fromkeys(text for text in every if text.strip()))


QUOTE: Final = '<|"|>'  # Gemma 4's, around strings


def in_object(arguments: str, front: str = "", behind: str = "") -> Style:
    """Calls as JSON objects with a name and arguments under that key, between texts."""
    return Style(
        open=(front + '{"name": "',), named=(f'", "{arguments}": ',), close=("}" + behind,), whole=True
    )  # fmt: skip


HERMES: Final = in_object("arguments", "<tool_call>\n", "\n</tool_call>")
LLAMA: Final = in_object("parameters")
MISTRAL: Final = Style(
    section=("[TOOL_CALLS][", "]"), between=", ", open=('{"name": "',), named=('", "arguments": ',), close=("}",),
    whole=True,
)  # fmt: skip
PYTHONIC: Final = Style(
    section=("<|tool_call_start|>[", "]<|tool_call_end|>"), between=", ", open=("",), named=("(",), close=(")",),
    notation="python",
)  # fmt: skip

CHANNELS: Final = Style(
    open=("to=functions.",), named=("<|channel|>commentary json<|message|>",), close=("",), between="", channels=True
)

# What shows in a template whose model was trained on a style, where it shows no call; the first that is found counts.
SIGNS: Final = (
    ("<|tool_list_start|>", PYTHONIC), ("List of tools: [", PYTHONIC), ("<tool_call>", HERMES),
    ("[TOOL_CALLS]", MISTRAL), ("python_tag", LLAMA), ('"parameters": ', LLAMA),
)  # fmt: skip


def style_of(template: str) -> Style:
    """How the template's model writes calls, as far as its source tells."""
    return next((style for sign, style in SIGNS if sign in template), HERMES)
