"""langchain-anthropic: invoke, stream, a forced tool, structured output, counting."""

import sys

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

URL = sys.argv[1]
QUESTION = "What is the capital of France?"


class City(BaseModel):
    """A city."""

    is_large: bool


def weather(city: str) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


model = ChatAnthropic(model="claude-any", base_url=URL, api_key="none", temperature=0, max_tokens=60, max_retries=0)
said = model.invoke(QUESTION)
assert said.content
assert said.usage_metadata["output_tokens"]
assert "".join(chunk.text for chunk in model.stream(QUESTION)) == said.text
called = model.bind_tools([weather], tool_choice="weather").invoke("The weather in Paris?")
assert called.tool_calls[0]["name"] == "weather", called
assert isinstance(model.with_structured_output(City).invoke("Describe Paris."), City)
assert isinstance(model.with_structured_output(City, method="json_schema").invoke("Describe Paris."), City)
assert model.get_num_tokens_from_messages([HumanMessage(QUESTION)]) > 5
