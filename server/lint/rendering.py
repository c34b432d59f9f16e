"""What does a template make of a conversation: as it is given, and as `serve` gives it?"""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Final, Literal, cast

from server.api.conversation.conversations import Conversations
from server.api.errors import ApiError
from server.api.schema import Fields
from server.config import ServerConfig
from server.lint.fixtures import FIXTURES, TOOLS, Fixture
from server.service import Service
from server.template.chat_template import ATTEMPT_S, ChatTemplate, ChatTemplateError

OF_TEMPLATE: Final = "the model's chat template "  # begins each of its errors, and is known here


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A fixture's texts; None where the template refuses or fails, and then why."""

    fixture: Fixture
    given: str | None
    served: str | None
    error: str = ""
    served_error: str = ""

    @property
    def lost(self) -> bool:
        """Is something left out of the text, though nothing failed?"""
        return self.given is not None and not shows(self.given, self.fixture)

    @property
    def served_whole(self) -> bool:
        """Does the text show all when `serve` gives it?"""
        return self.served is not None and shows(self.served, self.fixture)


def shows(text: str, fixture: Fixture) -> bool:
    """Are all the words there that have to be?"""
    return all(needle in text for needle in fixture.needles)


Used = Literal["always", "without tools", "with tools"]
"""For which conversations a template is used; a file may have one of its own for those with tools."""


def render_all(template: ChatTemplate, used: Used) -> dict[str, Rendered]:
    """Every fixture that concerns this template, by name; each as a conversation that it is used for."""
    template = replace(template, limit_s=ATTEMPT_S)  # these are small, and there are many
    conversations = conversations_of(template)
    fixtures = [fixture for fixture in FIXTURES if fixture.knows in template.source]
    if used == "without tools":
        fixtures = [fixture for fixture in fixtures if "tools" not in fixture.variables]
    if used == "with tools":
        fixtures = [replace(fixture, variables={**TOOLS, **fixture.variables}) for fixture in fixtures]
    return {fixture.name: _rendered(template, conversations, fixture) for fixture in fixtures}


def conversations_of(template: ChatTemplate) -> Conversations:
    """What `serve` makes of conversations by this template. Users' control tokens are no matter here, so no engine is
    asked.
    """
    config = ServerConfig(control_tokens_in_chat=True)
    return Conversations(
        cast("Service", SimpleNamespace(chat_template=template, tool_template=template, config=config))
    )


def _rendered(template: ChatTemplate, conversations: Conversations, fixture: Fixture) -> Rendered:
    given = served = None
    error = served_error = ""
    try:
        given = template.render(fixture.messages, fixture.variables)
    except ChatTemplateError as failed:
        error = str(failed).removeprefix(OF_TEMPLATE)
    try:
        served = conversations.read(Fields(_body(fixture))).text
    except (ChatTemplateError, ApiError) as failed:
        served_error = str(failed).removeprefix(OF_TEMPLATE)
    return Rendered(fixture=fixture, given=given, served=served, error=error, served_error=served_error)


def _body(fixture: Fixture) -> dict[str, Any]:
    """The fixture as a request."""
    own = {name: value for name, value in fixture.variables.items() if name in ("tools", "add_generation_prompt")}
    others = {name: value for name, value in fixture.variables.items() if name not in own}
    return {"messages": list(fixture.messages), **own, "chat_template_kwargs": others}
