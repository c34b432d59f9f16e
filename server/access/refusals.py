"""Why may a request be refused? The words that metrics count refusals by."""

from enum import StrEnum


class Refusal(StrEnum):
    """A reason, in a word for metrics."""

    QUEUE_FULL = "queue full"
    CONTEXT_LENGTH = "context length"
    DEADLINE = "deadline"
    CLIENT_RATE = "client rate"
    CLIENT_CONCURRENCY = "client concurrency"
