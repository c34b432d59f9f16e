"""outlines: text and a schema from OpenAI's client."""

import sys

import openai
import outlines
from pydantic import BaseModel, Field

URL = sys.argv[1]


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=12)
    inhabitants: int = Field(ge=0, le=99_999_999)


model = outlines.from_openai(openai.OpenAI(base_url=f"{URL}/v1", api_key="none"), "any")
assert model("What is the capital of France?", max_tokens=20, temperature=0)
assert "".join(model.stream("What is the capital of France?", max_tokens=20, temperature=0))
City.model_validate_json(model("Describe Paris.", City, max_tokens=100, temperature=0))
