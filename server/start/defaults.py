"""Would a request that says nothing be answered? What flags say of fields and of the template, tried before the start.

A server whose every request is refused for a flag of its own starts, says that it is well, and answers nobody.
"""

import argparse

from server.api.constraint import read_constraint
from server.api.embeddings import read_norm
from server.api.errors import ApiError
from server.api.options import read_limit
from server.api.sampling_fields import read_sampling
from server.api.schema import Fields
from server.config import ServerConfig
from server.flags.pasted import flag_of
from server.flags.serve import config_of
from server.template.chat_template import ChatTemplateError, compiled


def checked_config(args: argparse.Namespace) -> ServerConfig:
    """What flags say of the HTTP side.

    Raises:
        ValueError: as `check_defaults`, or an API key was asked for and there is none.
    """
    config = config_of(args)
    check_defaults(config)
    return config


def check_defaults(config: ServerConfig) -> None:
    """Raises ValueError: what a flag says of a field would be refused in requests, or its template is no Jinja."""
    fields = Fields(config.field_defaults)
    try:
        read_limit(fields)
        read_norm(fields)
        read_sampling(fields, read_constraint(fields), lambda text: (), n_vocab=0)
    except ApiError as error:
        flag = flag_of((error.param or "").partition(".")[0])
        raise ValueError(f"{flag}: {error.message}" if flag else error.message) from None
    try:
        if config.chat_template:
            compiled(config.chat_template)
    except ChatTemplateError as error:
        raise ValueError(f"--chat-template: {error}") from None
