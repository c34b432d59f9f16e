"""haystack: OpenAIChatGenerator (whole, streamed, tools, a schema), OpenAIGenerator, both embedders."""

import sys
from typing import Annotated

from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage, Document
from haystack.tools import create_tool_from_function
from haystack.utils import Secret
from pydantic import BaseModel, Field

URL = sys.argv[1]


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=12)
    inhabitants: int = Field(ge=0, le=99_999_999)


def weather(city: Annotated[str, "the city"]) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


where = {"api_key": Secret.from_token("none"), "api_base_url": f"{URL}/v1", "model": "any"}
cold = {"temperature": 0.0, "max_completion_tokens": 100}
asked = [ChatMessage.from_system("Be short."), ChatMessage.from_user("What is the capital of France?")]

whole = OpenAIChatGenerator(**where, generation_kwargs=cold).run(asked)["replies"][0]
assert whole.text
assert whole.meta["usage"]["completion_tokens"]
pieces: list[str] = []
streaming = OpenAIChatGenerator(
    **where, generation_kwargs={**cold, "stream_options": {"include_usage": True}},
    streaming_callback=lambda chunk: pieces.append(chunk.content),
)  # fmt: skip
streamed = streaming.run(asked)["replies"][0]
assert streamed.text == "".join(pieces)
shaped = OpenAIChatGenerator(**where, generation_kwargs={**cold, "response_format": City}).run(asked)["replies"][0]
City.model_validate_json(shaped.text)
tool = create_tool_from_function(weather)
for tool_choice in ("required", {"type": "function", "function": {"name": "weather"}}):
    generator = OpenAIChatGenerator(**where, generation_kwargs={**cold, "tool_choice": tool_choice}, tools=[tool])
    called = generator.run([ChatMessage.from_user("The weather in Paris?")])["replies"][0]
    assert set(called.tool_calls[0].arguments) == {"city"}
    result = ChatMessage.from_tool("It rains.", origin=called.tool_calls[0])
    plain = OpenAIChatGenerator(**where, generation_kwargs=cold)
    assert plain.run([ChatMessage.from_user("The weather in Paris?"), called, result])["replies"][0].text
responses = OpenAIResponsesChatGenerator(**where, generation_kwargs={"temperature": 0.0, "max_output_tokens": 40})
assert responses.run(asked)["replies"][0].text
vector = OpenAITextEmbedder(**where).run("a cat")["embedding"]
documents = OpenAIDocumentEmbedder(**where).run([Document(content="a cat"), Document(content="a dog")])["documents"]
assert len(documents[1].embedding) == len(vector)
