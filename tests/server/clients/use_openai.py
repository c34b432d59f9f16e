"""openai: chat, stream, parse, tools, logprobs, embeddings, completions, responses, and its exceptions."""

import json
import sys

import openai
from pydantic import BaseModel

URL = sys.argv[1]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
ASKED = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather", "description": "The weather in a city",
        "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}  # fmt: skip


class City(BaseModel):
    name: str
    inhabitants: int


class Weather(BaseModel):
    """The weather in a city."""

    city: str


model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

# chat
whole = client.chat.completions.create(model=model, messages=ASKED, max_tokens=12, temperature=0)
assert whole.choices[0].message.content, whole
assert whole.usage is not None
assert whole.usage.completion_tokens <= 12
assert whole.usage.prompt_tokens_details is not None

# stream
chunks = list(
    client.chat.completions.create(
        model=model, messages=ASKED, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}
    )
)
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
with client.chat.completions.stream(model=model, messages=ASKED, max_tokens=100, stop=["."]) as stream:
    kinds = {event.type for event in stream}
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
    assert stream.get_final_completion().choices[0].message.content

# parse
parsed = client.chat.completions.parse(
    model=model, messages=[{"role": "user", "content": "Describe Paris."}], response_format=City, max_tokens=100,
    temperature=0,
)  # fmt: skip
assert isinstance(parsed.choices[0].message.parsed, City), parsed
with client.chat.completions.stream(
    model=model, messages=[{"role": "user", "content": "Describe Paris."}], response_format=City, max_tokens=100,
    temperature=0,
) as stream:  # fmt: skip
    assert isinstance(stream.get_final_completion().choices[0].message.parsed, City)

# tools
called = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "Weather in Paris?"}], tools=[TOOL], tool_choice="required",
    temperature=0, max_tokens=60,
)  # fmt: skip
call = called.choices[0].message.tool_calls[0]
assert call.function.name == "weather"
assert list(json.loads(call.function.arguments)) == ["city"]
assert called.choices[0].finish_reason == "tool_calls"
answered = client.chat.completions.create(
    model=model, max_tokens=12, temperature=0, tools=[TOOL],
    messages=[
        {"role": "user", "content": "Weather in Paris?"}, called.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ],
)  # fmt: skip
assert answered.choices[0].message.content or answered.choices[0].message.tool_calls
with client.chat.completions.stream(
    model=model, messages=[{"role": "user", "content": "Weather in Paris?"}], temperature=0, max_tokens=60,
    tools=[openai.pydantic_function_tool(Weather)],
    tool_choice={"type": "function", "function": {"name": "Weather"}},
) as stream:  # fmt: skip
    done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert isinstance(done[0].parsed_arguments, Weather), done

# a format beside tools: one of both
either = client.chat.completions.parse(
    model=model, messages=[{"role": "user", "content": "Weather in Paris?"}], tools=[TOOL], response_format=City,
    temperature=0, max_tokens=100,
).choices[0].message  # fmt: skip
assert bool(either.tool_calls) is not isinstance(either.parsed, City), either

# logprobs
scored = client.chat.completions.create(
    model=model, messages=ASKED, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
)
assert len(scored.choices[0].logprobs.content) == scored.usage.completion_tokens
assert all(len(t.top_logprobs) == 2 and t.logprob <= 0 for t in scored.choices[0].logprobs.content)

# several answers, stop, bias
many = client.chat.completions.create(
    model=model, messages=ASKED, max_tokens=3, n=2, stop=["\n"], logit_bias={"5": -100}
)
assert [choice.index for choice in many.choices] == [0, 1]

# completions
text = client.completions.create(
    model=model, prompt=["One two", "A B"], max_tokens=3, temperature=0, logprobs=1, echo=True
)
assert [choice.text.startswith(p) for choice, p in zip(text.choices, ("One two", "A B"), strict=True)] == [True, True]
assert text.choices[0].logprobs.token_logprobs[0] is None
assert "".join(
    c.choices[0].text
    for c in client.completions.create(model=model, prompt="A B", max_tokens=3, stream=True)
    if c.choices
)

# embeddings
vectors = client.embeddings.create(model=model, input=["a cat", "a dog"]).data
assert len(vectors) == 2
assert abs(sum(x * x for x in vectors[0].embedding) - 1) < 1e-3

# responses
said = client.responses.create(model=model, input="What is the capital of France?", max_output_tokens=12, temperature=0)
assert said.output_text, said
assert said.usage.output_tokens <= 12
events = list(
    client.responses.create(
        model=model, input="What is the capital of France?", max_output_tokens=12, temperature=0, stream=True
    )
)
assert [e.type for e in events][:2] == ["response.created", "response.in_progress"]
assert events[-1].type in ("response.completed", "response.incomplete"), events[-1]
told = "".join(e.delta for e in events if e.type == "response.output_text.delta")
assert told == events[-1].response.output_text
assert [e.sequence_number for e in events] == list(range(len(events)))
form = client.responses.parse(
    model=model, input="Describe Paris.", text_format=City, max_output_tokens=100, temperature=0
)
assert isinstance(form.output_parsed, City)
tool = {"type": "function", **TOOL["function"]}
acted = client.responses.create(
    model=model, input="Weather in Paris?", tools=[tool], tool_choice="required", max_output_tokens=60, temperature=0
)
assert acted.output[0].type == "function_call", acted.output
assert list(json.loads(acted.output[0].arguments)) == ["city"]
again = client.responses.create(
    model=model, tools=[tool], max_output_tokens=8, temperature=0,
    input=[
        {"role": "user", "content": "Weather in Paris?"}, *acted.output,
        {"type": "function_call_output", "call_id": acted.output[0].call_id, "output": "sunny"},
    ],
)  # fmt: skip
assert again.output, again
with client.responses.stream(
    model=model, input="Describe Paris.", text_format=City, max_output_tokens=100, temperature=0
) as s:
    assert isinstance(s.get_final_response().output_parsed, City)

# exceptions
try:
    client.completions.create(model=model, prompt="word " * 20000, max_tokens=1)
except openai.BadRequestError as error:
    assert error.code == "context_length_exceeded", error
    assert error.body["n_prompt_tokens"] > error.body["n_ctx"]
else:
    raise AssertionError("a prompt of 20,000 words was taken")
