"""litellm, with its openai and its llamafile provider: chat, stream, tools, a schema, text completion, embeddings."""

import json
import sys

import litellm

URL = sys.argv[1]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather", "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}  # fmt: skip
ASKED = [{"role": "user", "content": "What is the capital of France?"}]

for provider in ("openai", "llamafile"):
    where = {"model": f"{provider}/any", "api_base": f"{URL}/v1", "api_key": "none", "max_tokens": 40, "temperature": 0}
    whole = litellm.completion(messages=ASKED, **where).choices[0].message.content
    assert whole
    parts = litellm.completion(messages=ASKED, stream=True, **where)
    assert "".join(part.choices[0].delta.content or "" for part in parts)
    called = litellm.completion(messages=ASKED, tools=[TOOL], tool_choice="required", **where)
    call = called.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    assert "city" in json.loads(call.function.arguments)

where = {"model": "openai/any", "api_base": f"{URL}/v1", "api_key": "none", "max_tokens": 40, "temperature": 0}
schema = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}}, "required": ["answer"]}
form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
answer = litellm.completion(messages=ASKED, response_format=form, **where)
assert json.loads(answer.choices[0].message.content)["answer"] in ("yes", "no")
text = litellm.text_completion(prompt="One two", **{**where, "model": "text-completion-openai/any"})
assert text.choices[0].text
vectors = litellm.embedding(
    model="openai/any", input=["a cat"], api_base=f"{URL}/v1", api_key="none", encoding_format="float"
)
assert len(vectors.data[0]["embedding"]) > 1
said = litellm.responses(model="openai/any", input="Say hi", api_base=f"{URL}/v1", api_key="none", max_output_tokens=5)
assert said.output
try:
    litellm.completion(messages=[{"role": "user", "content": "word " * 20000}], **where)
except litellm.ContextWindowExceededError:
    pass
else:
    raise AssertionError("a prompt of 20,000 words was taken")
