"""dspy: a language model by its name, and a prediction whose JSON adapter sends a schema."""

import sys

import dspy

URL = sys.argv[1]
# A name that litellm knows: of others it believes that they follow no schema.
lm = dspy.LM("openai/gpt-4o-mini", api_base=f"{URL}/v1", api_key="none", temperature=0.0, max_tokens=60, cache=False)


class City(dspy.Signature):
    """Describe a city."""

    question: str = dspy.InputField()
    inhabitants: int = dspy.OutputField(ge=0, le=99_999_999)


assert lm("What is the capital of France?")[0]
with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
    assert isinstance(dspy.Predict(City)(question="Paris?").inhabitants, int)
