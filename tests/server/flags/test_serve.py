"""Flags and variables of the environment: all of llama-server's are taken, refused by name, or named."""

import argparse
from functools import cache
from pathlib import Path

import pytest

from ggufphys.cli import main
from ggufphys.flags.environment import unknown, words
from ggufphys.flags.others import other_flags_notes
from server.app import create_app
from server.engine.llama.tiny_model import write_tiny_model
from server.flags.adapters import adapters_of
from server.flags.pasted import field_defaults, refused
from server.flags.serve import add_arguments, config_of
from tests.server.fake_engine import FakeEngine

RECORD = Path(__file__).parents[2] / "data" / "llama-server-flags.txt"
VALUES = {  # where "1" is no value
    "--split-mode": "layer", "--cache-type-k": "f16", "--cache-type-v": "f16", "--flash-attn": "on",
    "--load-mode": "mmap", "--rpc": "localhost:1", "--override-tensor": "a=CPU", "--json-schema": "{}",
    "--chat-template-kwargs": "{}", "--chat-template": "chatml", "--chat-template-file": str(RECORD),
    "--grammar-file": str(RECORD), "--json-schema-file": None, "--api-prefix": "/a", "--tensor-split": "1",
    "--override-tensor-draft": "a=CPU", "--spec-draft-type-k": "q8_0", "--spec-draft-type-v": "q8_0",
    "--spec-draft-n-min": "2", "--reasoning-format": "none", "--pooling": "mean",
    "--spec-type": "ngram-simple", "--spec-ngram-simple-min-hits": "2",
}  # fmt: skip


def test_adapters(tmp_path: Path) -> None:
    """Adapters by llama-server's flags, with a name or without, and whether they are applied to all."""
    odd = tmp_path / "x=y.gguf"
    odd.touch()
    given = ["--lora", f"a.gguf,n=b.gguf,{odd}", "--lora-scaled", "c.gguf:0.5,m=/d/e.gguf:2"]

    adapters = adapters_of(parser().parse_args(given))

    assert [(a.path, a.name, a.scale, a.named_scale) for a in adapters] == [
        ("a.gguf", "", 1.0, 1.0), ("b.gguf", "n", 0.0, 1.0), (str(odd), "", 1.0, 1.0), ("c.gguf", "", 0.5, 0.5),
        ("/d/e.gguf", "m", 0.0, 2.0),
    ]  # fmt: skip
    without = adapters_of(parser().parse_args([*given, "--lora-init-without-apply"]))
    assert {a.scale for a in without} == {0.0}
    with pytest.raises(ValueError, match="each name once"):
        adapters_of(parser().parse_args(["--lora", "n=a.gguf,n=b.gguf"]))
    for wrong in (["--lora", "=a.gguf"], ["--lora-scaled", "a.gguf"], ["--lora-scaled", "a.gguf:much"]):
        with pytest.raises(argparse.ArgumentError):
            parser().parse_args(wrong)


def rows() -> list[tuple[int, str, list[str], list[str]]]:
    """Number of values, variable, names, names that say no."""
    found = []
    for line in RECORD.read_text().splitlines():
        if not line.startswith("#"):
            n, variable, names, negative = line.split()
            found.append((int(n), variable, names.split(","), [] if negative == "-" else negative.split(",")))
    return found


@cache
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_arguments(made)
    return made


def parse(arguments: list[str]) -> argparse.Namespace:
    return parser().parse_args(arguments)


def value_of(names: list[str], tmp_path: Path) -> str:
    schema = tmp_path / "schema.json"
    schema.write_text("{}")
    found = [VALUES[name] for name in names if name in VALUES]
    return (found[0] or str(schema)) if found else "1"


def test_every_flag_is_taken_or_named(tmp_path: Path) -> None:
    """Each of llama-server's flags, by each of its names, sets something, is named in a note, or is refused by name."""
    silent, plain = [], vars(parse([]))
    for n, _, names, negative in rows():
        for name in (*names, *negative):
            values = [value_of(names, tmp_path)] * (0 if name in negative else n)
            args = parse([name, *values])
            named = any(name in note for note in other_flags_notes(args)) or name in getattr(args, "refused_flags", {})
            if not named and vars(args) == plain and name not in DEFAULTS:
                silent.append(name)
    assert silent == []


ELSEWHERE = ("LLAMA_ARG_MODEL", "LLAMA_ARG_DEVICE", "HF_TOKEN")  # read where they are needed, or by nobody
DEFAULTS = (  # what is so anyway
    "--metrics", "--slots", "--ui", "--webui", "--props", "--no-cors-credentials", "--prefill-assistant",
    "--no-skip-chat-parsing", "--mmproj-auto", "--mmproj-offload",
)  # fmt: skip


def test_every_variable_is_read(tmp_path: Path) -> None:
    """Each of llama-server's variables gives words that `serve` parses; one that it has not is told."""
    variables = {}
    for n, variable, names, negative in rows():
        if variable != "-":
            variables[variable] = "1" if negative or n == 0 else value_of(names, tmp_path)

    parse(words(variables))
    assert unknown(variables) == ()
    assert unknown({**variables, "LLAMA_ARG_NONE": "1", "OTHER": "1"}) == ("LLAMA_ARG_NONE",)
    heard = words(variables)
    for n, variable, _, _ in rows():
        if n and variable not in ("-", *ELSEWHERE):
            assert words({variable: variables[variable]}), variable
    assert len(heard) == len([v for v in variables if v not in ELSEWHERE])


def test_variables_of_yes_and_no() -> None:
    """Switches hear llama-server's words for yes and no, a NO_ variable says no whatever it is set to."""
    assert words({"LLAMA_ARG_KV_UNIFIED": "off"}) == ["--no-kv-unified"]
    assert words({"LLAMA_ARG_KV_UNIFIED": "enabled"}) == ["--kv-unified"]
    assert words({"LLAMA_ARG_NO_KV_UNIFIED": "0"}) == ["--no-kv-unified"]
    assert words({"LLAMA_ARG_SWA_FULL": "0"}) == []
    with pytest.raises(ValueError, match="LLAMA_ARG_KV_UNIFIED"):
        words({"LLAMA_ARG_KV_UNIFIED": "maybe"})


def test_flags_win_over_variables() -> None:
    """The command line comes behind the environment, as in llama-server."""
    args = parse([*words({"LLAMA_ARG_CTX_SIZE": "100", "LLAMA_ARG_PORT": "1"}), "-c", "200"])

    assert (args.n_ctx, args.port) == (200, 1)


def test_empty_variable_fails_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """LLAMA_API_KEY that is set and empty refuses to start; LLAMA_ARG_MODEL names the model."""
    model = tmp_path / "tiny.gguf"
    write_tiny_model(model)
    monkeypatch.setenv("LLAMA_ARG_MODEL", str(model))
    monkeypatch.setenv("LLAMA_API_KEY", "")

    assert main(["serve", "-c", "300", "--port", "0", "-dev", "none"]) == 2
    assert "an API key was asked for" in capsys.readouterr().err
    monkeypatch.setenv("LLAMA_API_KEY", "a")
    assert main(["serve", "-c", "300", "--port", "0", "-dev", "none"]) == 4  # and gets as far as its vocabulary
    assert str(model) in capsys.readouterr().err


def test_field_defaults() -> None:
    """llama-server's sampling flags are the defaults of requests' fields."""
    args = parse(["--temp", "0", "--top-k", "7", "-n", "3", "--samplers", "top_k;temperature", "--no-cache-prompt"])

    assert field_defaults(args) == {
        "temperature": 0.0, "top_k": 7, "n_predict": 3, "samplers": ["top_k", "temperature"], "cache_prompt": False,
    }  # fmt: skip
    refused(args)
    more = parse(["-r", "a", "-r", "b", "--dry-sequence-breaker", "x", "--pooling", "mean", "--embd-normalize", "1"])
    assert field_defaults(more) == {
        "stop": ["a", "b"], "dry_sequence_breakers": ["x"], "pooling": "mean", "embd_normalize": 1,
    }  # fmt: skip


def test_silence_may_stay_silent() -> None:
    """A ping interval of -1 or 0 is none, by flag or variable, as in llama-server."""
    assert config_of(parse(["--sse-ping-interval", "-1"])).ping_s == -1
    assert config_of(parse(words({"LLAMA_ARG_SSE_PING_INTERVAL": "0"}))).ping_s == -1
    assert config_of(parse(["--sse-ping-interval", "7"])).ping_s == 7


def test_what_is_not_shown() -> None:
    """Slots and the page can be left out, by llama-server's flags."""
    shown, hidden = config_of(parse([])), config_of(parse(["--no-slots", "--no-webui"]))
    for config, codes in ((shown, (200, 200, True)), (hidden, (501, 404, False))):
        client = create_app(config, FakeEngine()).test_client()
        props = client.get("/props").get_json()
        assert (client.get("/slots").status_code, client.get("/").status_code, props["endpoint_slots"]) == codes
    assert config_of(parse(words({"LLAMA_ARG_ENDPOINT_SLOTS": "0", "LLAMA_ARG_UI": "off"}))) == hidden


def test_several_aliases() -> None:
    """A model's names come by commas, as in llama-server; empty ones are none."""
    assert parse(["-a", "one, two,"]).alias == ("one", "two")
    assert parse(["-a", ""]).alias == ()


def test_flags_of_reasoning(capsys: pytest.CaptureFixture[str]) -> None:
    """They add to what templates get, the later winning; an effort of `default` is none; wrong values are told."""
    given = ["--chat-template-kwargs", '{"a": 1}', "-rea", "off", "--reasoning-effort", "high"]
    args = parse([*given, "--no-reasoning-preserve", "--reasoning-budget", "9", "--reasoning-format", "none"])
    undone = parse([*given, "--reasoning", "auto", "--reasoning-effort", "default"])

    assert field_defaults(args) == {
        "chat_template_kwargs": {
            "a": 1, "enable_thinking": False, "reasoning_effort": "high", "preserve_reasoning": False,
        },
        "reasoning_budget_tokens": 9, "reasoning_format": "none",
    }  # fmt: skip
    assert field_defaults(undone) == {"chat_template_kwargs": {"a": 1}}
    for flag, value in (("-rea", "maybe"), ("--reasoning-budget", "-2"), ("--reasoning-format", "deepseek-legacy")):
        with pytest.raises(SystemExit) as ended:
            main(["serve", flag, value])
        assert ended.value.code == 2
        assert flag in capsys.readouterr().err


def test_refused_flags_say_why() -> None:
    """What would change the answers and is not done ends the start with its name."""
    args = parse(["--rope-scale", "2", "--control-vector-layer-range", "1", "2"])
    with pytest.raises(ValueError, match="--rope-scale is not supported.*--control-vector-layer-range"):
        refused(args)
