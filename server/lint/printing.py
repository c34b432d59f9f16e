"""Does a template print what has no text of its own?"""

from dataclasses import replace
from typing import Any

from server.lint.fixtures import Fixture
from server.template.chat_template import ChatTemplate


def prints_objects(template: ChatTemplate, fixture: Fixture) -> bool:
    """Is an object or a list among what the template prints of a conversation, rather than a text made of it?"""
    environment, seen = template.template.environment, False

    def noted(value: Any) -> Any:
        nonlocal seen
        seen = seen or isinstance(value, (dict, list, tuple))
        return environment.finalize(value) if environment.finalize else value

    noting = environment.overlay(finalize=noted).from_string(template.source)
    replace(template, template=noting).attempt(fixture.messages, fixture.variables)
    return seen
