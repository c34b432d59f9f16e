"""llama-index's OpenAILike: complete, chat, their streams, structured output, a tool that is called."""

import sys
from typing import Annotated

from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

URL = sys.argv[1]


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=12)
    inhabitants: int = Field(ge=0, le=99_999_999)


def weather(city: Annotated[str, Field(max_length=12)]) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


options = {
    "model": "any", "api_base": f"{URL}/v1", "api_key": "none", "temperature": 0.0, "max_tokens": 100,
    "context_window": 4096,
}  # fmt: skip
chat = OpenAILike(is_chat_model=True, is_function_calling_model=True, **options)
text = OpenAILike(is_chat_model=False, **options)
messages = [ChatMessage(role="system", content="Be short."), ChatMessage(role="user", content="The capital of France?")]

assert text.complete("The capital of France is").text
assert "".join(part.delta for part in text.stream_complete("The capital of France is"))
assert chat.chat(messages).message.content
assert "".join(part.delta or "" for part in chat.stream_chat(messages))
tool = FunctionTool.from_defaults(weather)
answer = chat.chat_with_tools([tool], user_msg="The weather in Paris?", tool_required=True)
(call, *_) = chat.get_tool_calls_from_response(answer)
assert (call.tool_name, set(call.tool_kwargs)) == ("weather", {"city"})
assert "It rains" in chat.predict_and_call([tool], user_msg="The weather in Paris?", tool_required=True).response
assert isinstance(chat.structured_predict(City, PromptTemplate("Describe Paris.")), City)
