"""What the HTTP side is told: names, keys and limits. Nothing here is about the model's memory, which `Params` says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from server.access.cors import CorsPolicy

THOUGHTS: Final = ("none", "auto", "deepseek")  # of llama-server's reasoning_format, those that are had


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of the HTTP side."""

    api_keys: tuple[str, ...] = ()  # empty: no key is asked for
    requests_per_minute: int = 0  # of one client; 0: any number
    requests_at_once: int = 0  # of one client; 0: any number
    field_defaults: Mapping[str, Any] = field(default_factory=dict)  # for requests that leave a field out
    aliases: tuple[str, ...] = ()  # the model's names to clients; none: its own alone
    chat_template: str = ""  # in place of the file's
    api_prefix: str = ""  # of every path
    cors: CorsPolicy = field(default_factory=CorsPolicy)  # pages of which origins may use it
    max_body_bytes: int = 16 << 20
    ping_s: float = 15.0  # of silence in a stream before a comment is sent, so that proxies keep it open
    control_tokens_in_chat: bool = False  # read those that users write, as llama-server does
    prefill_assistant: bool = True  # a last message of the assistant's is gone on from
    skip_chat_parsing: bool = False  # thoughts and calls stay in the content
    shows_slots: bool = True  # GET /slots is answered
    shows_page: bool = True  # GET / is answered
    poll_s: float = 0.25  # how often a silent client is looked at
