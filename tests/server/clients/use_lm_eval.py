"""lm-eval, its programs for OpenAI's API and a task of its own: how likely endings are, and what a model writes.

The server's tokenizer is asked (`tokenizer_backend` remote, found by itself), or none is needed. What it found goes to
the file that is named second, if one is: (beginning, ending, log-likelihood, whether it is the likeliest).
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
from lm_eval.tasks import TaskManager

URL = sys.argv[1]
QUESTIONS = [
    {"question": "The capital of France is", "choices": [" Paris", " London, in England", " the"], "answer": 0},
    {"question": "def add(a, b):\n    return", "choices": [" a + b", " a"], "answer": 0},
    {"question": "Créer une queue d’objets,", "choices": [" objet par objet.", " 队列 🙂"], "answer": 0},
    {"question": "One, two, three, four, " * 20, "choices": ["five", "one, two"], "answer": 1},
]


def tasks(where: Path) -> list[dict[str, object]]:
    """One that chooses, and one that writes."""
    data = where / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    common = {
        "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
        "doc_to_text": "{{question}}", "target_delimiter": "", "num_fewshot": 0,
    }  # fmt: skip
    choosing = {
        **common, "task": "choosing", "output_type": "multiple_choice", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    writing = {
        **common, "task": "writing", "output_type": "generate_until", "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 12, "temperature": 0, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    rolling = {
        **common, "task": "rolling", "output_type": "loglikelihood_rolling", "doc_to_text": "",
        "doc_to_target": "{{question}}", "metric_list": [{"metric": "bits_per_byte"}],
    }  # fmt: skip
    return [choosing, writing, rolling]


def evaluate(kind: str, path: str, which: list[dict[str, object]], **more: object) -> dict[str, list[dict]]:
    """The samples of each task."""
    chat = kind == "local-chat-completions"
    arguments = {"model": "any", "base_url": f"{URL}{path}", "max_length": 2048, "num_concurrent": 3, **more}
    found = lm_eval.simple_evaluate(
        model=kind, model_args=arguments, tasks=which, log_samples=True, bootstrap_iters=0, apply_chat_template=chat,
        task_manager=TaskManager(include_defaults=False),
    )  # fmt: skip
    return found["samples"]


with tempfile.TemporaryDirectory() as folder:
    choosing, writing, rolling = tasks(Path(folder))
    for more in ({}, {"tokenizer_backend": "remote", "batch_size": 2, "num_concurrent": 1}):
        samples = evaluate("local-completions", "/v1/completions", [choosing, writing, rolling], **more)
        scored = [
            (argument[0], argument[1], *map(float, answer[0]))
            for sample in samples["choosing"]
            for argument, answer in zip(sample["arguments"], sample["resps"], strict=True)
        ]
        assert len(scored) == sum(len(each["choices"]) for each in QUESTIONS)
        assert all(total < 0 for _, _, total, _ in scored)
        assert any(sample["resps"][0][0] for sample in samples["writing"])
        assert all("\n" not in sample["resps"][0][0] for sample in samples["writing"])
        if len(sys.argv) > 2:
            Path(sys.argv[2]).write_text(json.dumps(scored))
    untokenized = evaluate("local-completions", "/v1/completions", [writing], tokenizer_backend="none")["writing"]
    assert [s["resps"] for s in untokenized] == [s["resps"] for s in samples["writing"]]
    said = evaluate("local-chat-completions", "/v1/chat/completions", [writing])["writing"]
    assert any(sample["resps"][0][0] for sample in said)
