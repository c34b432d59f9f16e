"""What llama.vim, llama.vscode and Open WebUI send, with the fields that only they have: no package is needed."""

import json
import sys
import urllib.error
import urllib.request

URL = sys.argv[1]
TIMES = [
    f"timings/{part}_{figure}"
    for part in ("prompt", "predicted")
    for figure in ("n", "ms", "per_token_ms", "per_second")
]


def post(path: str, body: dict[str, object]) -> tuple[int, str]:
    """Status and text of the answer."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# an editor: the line so far, what stands around it, pieces of other files; at first only to fill the memory
asked = {
    "id_slot": 0, "input_prefix": "def area(width, height):\n", "input_suffix": "\n    return result\n",
    "input_extra": [{"text": "import math\n", "filename": "shapes.py", "time": [1, 2]}], "prompt": "    result = ",
    "n_predict": 8, "stop": [], "n_indent": 4, "top_k": 40, "top_p": 0.9, "stream": False, "cache_prompt": True,
    "samplers": ["top_k", "top_p", "infill"], "t_max_prompt_ms": 500, "t_max_predict_ms": 60_000,
}  # fmt: skip
status, text = post("/infill", {**asked, "n_predict": 0, "samplers": [], "response_fields": [""]})
if status != 501:  # the model has tokens for it
    assert (status, json.loads(text)) == (200, {}), text
    status, text = post("/infill", {**asked, "response_fields": ["content", "truncated", "tokens_cached", *TIMES]})
    found = json.loads(text)
    assert status == 200, text
    assert found["content"]
    assert set(TIMES) <= found.keys(), found
    assert found["timings/prompt_n"] < 8, found  # what the first request has filled the memory with is used
else:
    assert "no prefix" in json.loads(text)["error"]["message"], text

# a chat page: a stream with its usage, then a title without one
chat = {
    "model": "any", "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hi"}]}], "max_tokens": 8,
    "chat_id": "a", "id": "b", "session_id": "c", "features": {"web_search": False}, "background_tasks": {"tags": True},
    "user": {"name": "n", "id": "i", "email": "e", "role": "admin"},
}  # fmt: skip
status, text = post("/v1/chat/completions", {**chat, "stream": True, "stream_options": {"include_usage": True}})
chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
assert status == 200, text
assert "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
assert chunks[-1]["usage"]["completion_tokens"] > 0
status, text = post("/v1/chat/completions", {**chat, "stream": False, "metadata": {"task": "title_generation"}})
assert json.loads(text)["choices"][0]["message"]["content"], text
