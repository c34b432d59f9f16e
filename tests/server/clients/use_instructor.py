"""instructor in three modes (tools, JSON, JSON schema), each whole and as partial objects in a stream."""

import sys

import instructor
import openai
from pydantic import BaseModel

URL = sys.argv[1]
SAID = 'Write exactly this and nothing else: {"name": "Paris", "inhabitants": 2100000}'  # JSON mode forces no schema


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0), mode=mode)
    asked = {
        "model": "any", "response_model": City, "temperature": 0, "max_tokens": 120,
        "messages": [{"role": "user", "content": SAID}],
    }  # fmt: skip
    found = client.chat.completions.create(**asked, max_retries=2)
    assert isinstance(found, City), mode
    *_, last = client.chat.completions.create_partial(**asked)
    assert last.name, mode
