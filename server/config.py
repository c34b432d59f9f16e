"""What the HTTP side is told: names, keys and limits. Nothing here is about the model's memory, which `Params` says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of the HTTP side."""

    api_keys: tuple[str, ...] = ()  # empty: no key is asked for
    max_body_bytes: int = 16 << 20
    ping_s: float = 15.0  # of silence in a stream before a comment is sent, so that proxies keep it open
    control_tokens_in_chat: bool = False  # read those that users write, as llama-server does
    poll_s: float = 0.25  # how often a silent client is looked at
