"""What is told of an answer: all of it, and OpenAI's deltas that are not taken yet."""

import uuid
from typing import Any

Json = dict[str, Any]


class Told:
    """`content`, `reasoning` and `calls` hold all that came."""

    def __init__(self) -> None:
        self.content = ""
        self.reasoning = ""
        self.calls: list[Json] = []
        self._deltas: list[Json] = []

    def say(self, text: str) -> None:
        """Words."""
        self.content += text
        if text:
            self._deltas.append({"content": text})

    def think(self, text: str) -> None:
        """Thoughts."""
        self.reasoning += text
        if text:
            self._deltas.append({"reasoning_content": text})

    def call(self, name: str) -> None:
        """A call of a function begins."""
        call = {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": {"name": name, "arguments": ""}}
        self.calls.append(call)
        told = {"index": len(self.calls) - 1, **call, "function": {"name": name, "arguments": ""}}
        self._deltas.append({"tool_calls": [told]})

    def arguments(self, text: str) -> None:
        """More of the last call's arguments."""
        self.calls[-1]["function"]["arguments"] += text
        last = self._deltas[-1].get("tool_calls") if self._deltas else None
        if last:  # neighbours that add to the same arguments are one
            last[0]["function"]["arguments"] += text
        else:
            self._deltas.append({"tool_calls": [{"index": len(self.calls) - 1, "function": {"arguments": text}}]})

    def taken(self) -> list[Json]:
        """The deltas, which are told now."""
        deltas, self._deltas = self._deltas, []
        return deltas
