"""langchain-openai: ChatOpenAI (invoke, stream, tools, structured output three ways, logprobs) and OpenAIEmbeddings."""

import sys

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

URL = sys.argv[1]
where = {"base_url": f"{URL}/v1", "api_key": "none", "model": "any", "temperature": 0}


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


chat = ChatOpenAI(**where, max_tokens=40, stream_usage=True)
ASKED = [SystemMessage("Be brief."), HumanMessage("What is the capital of France?")]
whole = chat.invoke(ASKED)
assert whole.content
assert whole.usage_metadata["output_tokens"] <= 40
parts = list(chat.stream(ASKED))
assert "".join(part.content for part in parts)
assert any(part.usage_metadata for part in parts)

called = chat.bind_tools([weather], tool_choice="required").invoke("Weather in Paris?")
call = called.tool_calls[0]
assert call["name"] == "weather"
assert list(call["args"]) == ["city"]
after = chat.bind_tools([weather]).invoke(
    [HumanMessage("Weather in Paris?"), called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
)
assert isinstance(after, AIMessage)
streamed = None
for part in chat.bind_tools([weather], tool_choice="weather").stream("Weather in Paris?"):
    streamed = part if streamed is None else streamed + part
assert streamed.tool_calls[0]["name"] == "weather"

long = ChatOpenAI(**where, max_tokens=100)
for method in ("json_schema", "function_calling"):
    assert isinstance(long.with_structured_output(City, method=method).invoke("Describe Paris."), City), method
found = long.with_structured_output(None, method="json_mode").invoke('Write {"name": "Paris"} as JSON.')
assert isinstance(found, dict)

scored = ChatOpenAI(**where, max_tokens=3, logprobs=True, top_logprobs=2).invoke("Hi")
assert len(scored.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2
assert OpenAI(**where, max_tokens=5).invoke("One two")
vectors = OpenAIEmbeddings(base_url=f"{URL}/v1", api_key="none", model="any", check_embedding_ctx_length=False)
assert len(vectors.embed_documents(["a cat", "a dog"])) == 2
responses = ChatOpenAI(**where, max_tokens=20, use_responses_api=True)
assert responses.invoke("Hi").text
assert "".join(part.text for part in responses.stream("Hi"))
