"""openai-agents: a run, its stream, structured output and a tool that is called, by chat and by responses."""

import asyncio
import sys
from typing import Annotated

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    StopAtTools,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

URL = sys.argv[1]
QUESTION = "What is the capital of France?"


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=12)
    inhabitants: int = Field(ge=0, le=99_999_999)


@function_tool
def weather(city: Annotated[str, Field(max_length=12)]) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


async def main() -> None:
    """All of it, by both APIs."""
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="none")
    cold = ModelSettings(temperature=0.0, max_tokens=100)
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        model = kind(model="any", openai_client=client)
        if kind is OpenAIChatCompletionsModel:  # by responses a cut answer is the client's error
            plain = await Runner.run(Agent(name="a", model=model, model_settings=cold), QUESTION)
            assert plain.final_output
            assert plain.raw_responses[0].usage.output_tokens
            stream = Runner.run_streamed(Agent(name="a", model=model, model_settings=cold), QUESTION)
            deltas = [
                event.data.delta
                async for event in stream.stream_events()
                if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
            ]
            assert "".join(deltas) == stream.final_output
        shaper = Agent(name="a", model=model, model_settings=cold, output_type=City)
        assert isinstance((await Runner.run(shaper, "Describe Paris.")).final_output, City)
        shaped = Runner.run_streamed(shaper, "Describe Paris.")
        async for _ in shaped.stream_events():
            pass
        assert isinstance(shaped.final_output, City)
        forced = ModelSettings(temperature=0.0, max_tokens=100, tool_choice="required")
        caller = Agent(
            name="a", model=model, model_settings=forced, tools=[weather],
            tool_use_behavior=StopAtTools(stop_at_tool_names=["weather"]),
        )  # fmt: skip
        assert "It rains in" in (await Runner.run(caller, "The weather in Paris?")).final_output


set_tracing_disabled(True)
asyncio.run(main())
