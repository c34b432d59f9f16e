"""Where is the API? Of what a person types: with or without a scheme, a version, an endpoint's path."""

import re
from typing import Final, Literal
from urllib.parse import urlsplit

Endpoint = Literal["chat/completions", "completions"]
"""What is asked there."""

_ENDPOINT: Final = re.compile(r"/(chat/completions|completions|models)$")
_VERSION: Final = re.compile(r"v\d+\w*")  # of the API: v1, v1beta


def base_url(text: str) -> str:
    """The address that `/chat/completions` stands behind: `/v1` is added where no part of the path is a version.

    Raises:
        ValueError: it is no server's address, or says more than that.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}; expected a server's address, http://HOST:PORT") from None
    if not is_address:
        raise ValueError(f"{text!r}: expected a server's address, http://HOST:PORT")
    if parts.username is not None:
        raise ValueError(f"{parts.hostname}: a name and a password in an address are not sent: give --api-key")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r}: expected an address without anything behind its path")
    path = _ENDPOINT.sub("", parts.path.rstrip("/")).rstrip("/")
    has_version = any(_VERSION.fullmatch(part) for part in path.split("/"))
    return f"{parts.scheme}://{parts.netloc}{path}{'' if has_version else '/v1'}"
