"""llm, the command line, with its OpenAI models pointed here: a prompt, its stream, a schema, a conversation."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

URL = sys.argv[1]
COMMAND = str(Path(sys.executable).with_name("llm"))
home = Path(tempfile.mkdtemp())
(home / "extra-openai-models.yaml").write_text(
    f"- model_id: here\n  model_name: any\n  api_base: {URL}/v1\n  supports_schema: true\n  supports_tools: true\n"
)
environment = {**os.environ, "LLM_USER_PATH": str(home), "OPENAI_API_KEY": "none"}


def run(*arguments: str) -> str:
    """What the command prints."""
    done = subprocess.run(
        [COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


options = ["-m", "here", "-o", "temperature", "0", "-o", "max_tokens", "60"]
whole = run(*options, "--no-stream", "What is the capital of France?")
assert whole.strip()
assert run(*options, "What is the capital of France?").strip()
assert set(json.loads(run(*options, "--schema", "name, inhabitants int", "Describe Paris."))) == {"name", "inhabitants"}
assert run(*options, "-c", "And of Italy?").strip()
assert run(*options, "-T", "llm_version", "Which version is this?").strip() is not None
