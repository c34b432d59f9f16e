"""pydantic-ai: text, its stream, native structured output, tool output, and a tool that the model calls."""

import sys

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

URL = sys.argv[1]
provider = OpenAIProvider(base_url=f"{URL}/v1", api_key="none")
settings = {"temperature": 0.0, "max_tokens": 100}


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


for kind in (OpenAIChatModel, OpenAIResponsesModel):
    model = kind("any", provider=provider)
    text = Agent(model, model_settings=settings).run_sync("What is the capital of France?")
    assert text.output
    assert text.usage.output_tokens
    streamed = Agent(model, model_settings=settings).run_stream_sync("What is the capital of France?")
    assert "".join(streamed.stream_text(delta=True))
    native = Agent(model, model_settings=settings, output_type=NativeOutput(City))
    assert isinstance(native.run_sync("Describe Paris.").output, City)
    tool = Agent(model, model_settings=settings, output_type=ToolOutput(City))
    assert isinstance(tool.run_sync("Describe Paris.").output, City)
