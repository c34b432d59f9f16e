"""anthropic's Python package: messages whole and streamed, tools, schemas, thinking, counting, models, exceptions."""

import json
import sys

import anthropic
import pydantic

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
model = "claude-anything"
COLD = {"temperature": 0}
ASKED = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
TOOL = {
    "name": "weather", "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}  # fmt: skip


class City(pydantic.BaseModel):
    """What is to be filled in."""

    name: str
    inhabitants: int


# whole
whole = client.messages.create(model=model, messages=ASKED, system="Be short.", max_tokens=12, extra_body=COLD)
assert whole.content[0].type == "text", whole
assert whole.content[0].text
assert (whole.role, whole.stop_reason in ("end_turn", "max_tokens")) == ("assistant", True), whole
counted = client.messages.count_tokens(model=model, messages=ASKED, system="Be short.").input_tokens
usage = whole.usage
assert counted == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage)
stopped = client.messages.create(
    model=model, messages=[{"role": "user", "content": "Count: one two three four"}], max_tokens=40, extra_body=COLD,
    stop_sequences=["e", "t"],
)  # fmt: skip
assert (stopped.stop_reason, stopped.stop_sequence in ("e", "t")) == ("stop_sequence", True), stopped
begun = client.messages.create(
    model=model, messages=[*ASKED, {"role": "assistant", "content": "The capital is"}], max_tokens=3, extra_body=COLD
)
assert begun.content, begun

# streamed: raw, and by the helper
events = list(client.messages.create(model=model, messages=ASKED, max_tokens=12, extra_body=COLD, stream=True))
assert events[0].type == "message_start", events
assert [event.type for event in events[-2:]] == ["message_delta", "message_stop"], events
with client.messages.stream(model=model, messages=ASKED, system="Be short.", max_tokens=12, extra_body=COLD) as stream:
    told = "".join(stream.text_stream)
    final = stream.get_final_message()
assert final.content[0].text == told == whole.content[0].text, (final, whole)
assert final.usage.output_tokens == usage.output_tokens

# tools
for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
    with client.messages.stream(
        model=model, messages=[{"role": "user", "content": "Weather in Paris?"}], tools=[TOOL], tool_choice=choice,
        max_tokens=60, extra_body=COLD,
    ) as stream:  # fmt: skip
        kinds = {event.type for event in stream}
        called = stream.get_final_message()
    assert "input_json" in kinds, kinds
    assert called.stop_reason == "tool_use", called
    call = called.content[-1]
    assert (call.type, call.name, list(call.input)) == ("tool_use", "weather", ["city"]), call
answered = client.messages.create(
    model=model, max_tokens=12, extra_body=COLD, tools=[TOOL],
    messages=[
        {"role": "user", "content": "Weather in Paris?"}, {"role": "assistant", "content": called.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
    ],
)  # fmt: skip
assert answered.content, answered


@anthropic.beta_tool
def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: which.
    """
    return f"sunny in {city}"


runner = client.beta.messages.tool_runner(
    model=model, messages=[{"role": "user", "content": "Weather in Paris?"}], tools=[weather], max_tokens=40,
    tool_choice={"type": "any"}, max_iterations=2, extra_body=COLD,
)  # fmt: skip
assert [message.stop_reason for message in runner] == ["tool_use", "tool_use"]

# a schema
said = client.messages.parse(
    model=model, messages=[{"role": "user", "content": "Describe Paris."}], max_tokens=80, extra_body=COLD,
    output_format=City,
)  # fmt: skip
assert isinstance(said.parsed_output, City), said

# thinking: taken, whether the model thinks or not
thought = client.messages.create(
    model=model, messages=ASKED, max_tokens=1100, thinking={"type": "enabled", "budget_tokens": 1024}
)
assert thought.content, thought

# models
assert client.models.list().data[0].id
assert client.models.retrieve(client.models.list().data[0].id).type == "model"

# exceptions
try:
    client.messages.create(model=model, messages=[{"role": "user", "content": "word " * 20000}], max_tokens=1)
except anthropic.BadRequestError as error:
    assert error.body["type"] == "error", error.body
    assert error.body["error"]["type"] == "invalid_request_error", error.body
else:
    raise AssertionError("a prompt of 20,000 words was taken")
try:
    client.messages.create(model=model, messages=[{"role": "user", "content": [{"type": "image"}]}], max_tokens=1)
except anthropic.BadRequestError as error:
    assert "image" in error.message, error
else:
    raise AssertionError("an image was taken")
try:
    client.post("/v1/nothing", cast_to=object, body={})
except anthropic.NotFoundError as error:
    assert json.loads(error.response.text)["error"], error
else:
    raise AssertionError("there is such an endpoint")
