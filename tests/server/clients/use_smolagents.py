"""smolagents: OpenAIServerModel, whole and streamed, a forced call and a schema."""

import sys

from smolagents import OpenAIServerModel, tool
from smolagents.models import ChatMessage, MessageRole

URL = sys.argv[1]


@tool
def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name.
    """
    return f"It rains in {city}."


model = OpenAIServerModel("any", api_base=f"{URL}/v1", api_key="none", temperature=0.0, max_tokens=60)
asked = [ChatMessage(MessageRole.USER, content=[{"type": "text", "text": "What is the capital of France?"}])]
said = model(asked)
assert said.content
assert said.token_usage.output_tokens
assert "".join(delta.content or "" for delta in model.generate_stream(asked))
assert model(asked, stop_sequences=[" "]).content.count(" ") == 0
called = model(asked, tools_to_call_from=[weather])
assert called.tool_calls[0].function.name == "weather"
schema = {"name": "city", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
assert '"a"' in model(asked, response_format={"type": "json_schema", "json_schema": schema}).content
