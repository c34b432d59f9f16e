"""langchain-llama-cpp: ChatLlama (invoke, stream, tools, structured output), and its exception for long prompts."""

import sys

from langchain_core.tools import tool
from langchain_llama_cpp import ChatLlama, LlamaContextOverflowError
from pydantic import BaseModel

URL = sys.argv[1]
chat = ChatLlama(base_url=URL, model="any", temperature=0, max_tokens=60)


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


whole = chat.invoke("What is the capital of France?")
assert whole.content
assert whole.usage_metadata["output_tokens"] <= 60
assert "".join(part.content for part in chat.stream("What is the capital of France?"))
called = chat.bind_tools([weather], tool_choice="required").invoke("Weather in Paris?")
assert called.tool_calls[0]["name"] == "weather"
streamed = None
for part in chat.bind_tools([weather], tool_choice="required").stream("Weather in Paris?"):
    streamed = part if streamed is None else streamed + part
assert streamed.tool_calls[0]["name"] == "weather"
assert isinstance(chat.with_structured_output(City).invoke("Describe Paris."), City)
try:
    chat.invoke("word " * 20000)
except LlamaContextOverflowError:
    pass
else:
    raise AssertionError("a prompt of 20,000 words was taken")
