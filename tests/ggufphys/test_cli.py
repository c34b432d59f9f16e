"""The console script: exit codes, messages, and JSON that scripts rely on."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufphys import __version__
from ggufphys.builds import LATEST
from ggufphys.cli import COMMANDS, main
from ggufphys.gguf.writer import encode_header
from ggufphys.machine import host
from ggufphys.machine.devices import FoundDevice
from ggufphys.params import Device
from tests.ggufphys.models import llama_metadata, llama_tensors, shape_header, tiny_llama, write_model


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a call; argparse's own exits included."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def inspect_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    """The document that `inspect --json` prints."""
    exit_code, out, _ = run(capsys, "inspect", "--json", *arguments)
    assert exit_code == code
    document: dict[str, Any] = json.loads(out)
    return document


def test_inspect_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every key that the design promises is there, and totals are sums of terms."""
    path = tiny_llama(tmp_path / "tiny.gguf")
    document = inspect_json(capsys, path, "-c", "1024", "-ctk", "q8_0")

    assert document["schema_version"] == 1
    model = document["model"]
    assert {"architecture", "name", "n_params", "n_tensors", "file_bytes", "bpw", "file_type"} <= set(model)
    assert (model["architecture"], model["name"], model["n_tensors"]) == ("llama", "tiny", 20)
    assert model["file_bytes"] == path.stat().st_size
    params = document["params"]
    assert {
        "n_ctx", "n_ctx_seq", "n_batch", "n_ubatch", "n_seq_max", "n_outputs_max", "kv_unified", "type_k", "type_v",
        "flash_attn",
    } <= set(params)  # fmt: skip
    assert (params["n_ctx"], params["type_k"], params["n_ubatch"]) == (1024, "q8_0", 512)
    memory = document["memory"]
    assert memory["context_bytes"] == 2 * 1024 * (128 // 32 * 34 + 128 * 2)
    for quantity in ("model", "context", "compute", "output", "process"):
        terms = [t["nbytes"] for t in memory["terms"] if t["quantity"] == quantity]
        assert memory[f"{quantity}_bytes"] == sum(terms)
        assert all(t["formula"] and t["source"] for t in memory["terms"])
    assert memory["basis"]["model"] == memory["basis"]["context"] == memory["basis"]["compute"] == "exact"
    assert memory["devices"] == [
        {
            "name": "Host",
            "model_bytes": memory["model_bytes"],
            "context_bytes": memory["context_bytes"],
            "compute_bytes": memory["compute_bytes"],
            "output_bytes": memory["output_bytes"],
            "attachment_bytes": 0,
            "memory_bytes": None,
        }
    ]
    assert {"prefill_tok_per_s", "decode_tok_per_s", "load_s", "limit"} <= set(document["speed"])


def test_inspect_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text report names the model, the parameters and each term."""
    code, out, _ = run(capsys, "inspect", tiny_llama(tmp_path / "tiny.gguf"), "-np", "4", "--as", "library")

    assert code == 0
    for text in ("tiny: llama", "n_ctx 2,048 (as trained), 4 sequences of 512", "KV cache", "compute buffer", "exact"):
        assert text in out


def test_whose_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inspect answers for llama-server and says so; --as library for a bare call; both in the document, too."""
    path = tiny_llama(tmp_path / "tiny.gguf")
    _, server, _ = run(capsys, "inspect", path, "-np", "4")
    _, automatic, _ = run(capsys, "inspect", path, "-np", "-1")
    _, library, _ = run(capsys, "inspect", path, "--as", "library")

    build = f"llama.cpp b{LATEST} (newest recorded)"
    assert f"for llama-server, {build}: n_ctx 8,192 (as trained, for each slot), 4 slots of 2,048\n" in server
    assert f"for llama-server, {build}: n_ctx 2,048 (as trained), 4 slots sharing one cache\n" in automatic
    assert f"for a call of the library, {build}: n_ctx 2,048 (as trained), 1 sequence\n" in library
    assert "server: prompt cache" in server
    assert "server: prompt cache" not in library
    found = [inspect_json(capsys, path, *flags)["params"] for flags in ((), ("--as", "library"), ("--fit", "off"))]
    assert [(p["as"], p["n_outputs_max"]) for p in found] == [("server", 4), ("library", 2048), ("server", 4)]
    each = inspect_json(capsys, path, "-np", "3", "--kv-unified-per-slot", "512")["params"]
    assert each["n_ctx"] == 1536
    assert run(capsys, "inspect", path, "--as", "library", "-cram", "0")[0] == 2


def test_what_a_label_hides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The types by share of bytes, what a missing chat template means, a K cache whose heads begin within blocks."""
    mixed = str(shape_header(tmp_path / "mixed.gguf", "llama-3.1-8b"))
    _, out, _ = run(capsys, "inspect", mixed, "-c", "512")
    assert "by bytes: 74 % Q4_K, 26 % Q6_K\n" in out
    model = inspect_json(capsys, mixed, "-c", "512")["model"]
    assert list(model["type_bytes"]) == ["Q4_K", "Q6_K", "F32"]
    assert sum(model["type_bytes"].values()) == pytest.approx(model["bpw"] * model["n_params"] / 8)

    words = {"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.scores": [0.0, 0.0]}
    for template, told in ((None, True), ("{{ messages }}", False)):
        metadata: dict[str, Any] = {
            **llama_metadata(),
            **words,
            **({"tokenizer.chat_template": template} if template else {}),
        }
        path = write_model(tmp_path / "chat.gguf", metadata, llama_tensors())
        notes = inspect_json(capsys, path)["notes"]
        assert any("no chat template: llama-server writes chats as ChatML" in note for note in notes) is told

    shapes = {"attn_q": (256, 96), "attn_k": (256, 96), "attn_v": (256, 96), "attn_output": (96, 256)}
    tensors = [
        replace(t, ne=next((ne for part, ne in shapes.items() if f".{part}.weight" in t.name), t.ne))
        for t in llama_tensors()
    ]
    keys: dict[str, Any] = {"attention__key_length": 24, "attention__value_length": 24, "attention__head_count_kv": 4}
    path = write_model(tmp_path / "heads.gguf", llama_metadata(**keys, rope__dimension_count=24), tensors)
    notes = inspect_json(capsys, path, "-ctk", "q8_0", "-fa", "off")["notes"]
    assert any("heads of 24 begin within one" in note for note in notes)


def test_fit_shortens(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that nobody asked for is as long as this machine's memory lets llama-server make it; a note says so."""
    path = tiny_llama(tmp_path / "tiny.gguf", context_length=1 << 20)
    monkeypatch.setattr(host, "main_memory", lambda: host.MainMemory(total_bytes=2 << 30, available_bytes=1 << 30))
    _, out, _ = run(capsys, "inspect", path)
    whole = inspect_json(capsys, path, "-c", "0")
    less = inspect_json(capsys, path, "--fit-target", "1536", "--fit-ctx", "8k")

    assert "(shortened by --fit), 4 slots sharing one cache" in out
    assert "note: llama-server's --fit: " in out
    assert whole["params"]["n_ctx"] == 1 << 20
    assert whole["params"]["n_ctx"] > less["params"]["n_ctx"] >= 8192
    assert less["memory"]["total_bytes"] < 513 << 20


def test_llama_server_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A llama-server command line can be pasted."""
    line = "-c 8k -np 2 -kvu -b 1024 -ub 256 -ctk q8_0 -ctv q8_0 -fa on --swa-full --no-mmap --no-repack -t 2"
    params = inspect_json(capsys, tiny_llama(tmp_path / "tiny.gguf"), *line.split())["params"]

    assert params["n_ctx"] == params["n_ctx_seq"] == 8192
    assert (params["n_seq_max"], params["kv_unified"], params["n_batch"], params["n_ubatch"]) == (2, True, 1024, 256)
    assert (params["type_v"], params["flash_attn"], params["swa_full"]) == ("q8_0", "on", True)
    assert (params["use_mmap"], params["use_extra_bufts"]) == (False, False)


@pytest.mark.parametrize("program", ["llama-server", "./build/bin/llama-cli", "C:\\\\llama\\\\llama-server.exe"])
def test_pasted_with_its_program(tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str) -> None:
    """A pasted line may start with the program's name, wherever that lies."""
    path = tiny_llama(tmp_path / "tiny.gguf")

    assert inspect_json(capsys, program, "-m", path, "-c", "1k")["params"]["n_ctx"] == 1024


def test_ctx_is_a_name_of_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--ctx 8k`, `--ctx-size 8k` and `-c 8192` are the same."""
    path = tiny_llama(tmp_path / "tiny.gguf")
    made = [inspect_json(capsys, path, *flags.split())["params"] for flags in ("--ctx 1k", "--ctx-size 1k", "-c 1024")]

    assert made[0] == made[1] == made[2]
    assert made[0]["n_ctx"] == 1024


@pytest.mark.parametrize(("flags", "said"), [("-c 4k", True), ("-c 4k -np 2", False), ("-c 2k", False), ("", False)])
def test_beyond_training(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, said: bool) -> None:
    """A sequence that may get longer than the model was trained for is worth a note."""
    notes = inspect_json(capsys, tiny_llama(tmp_path / "tiny.gguf"), *flags.split())["notes"]

    assert any("was trained on 2,048" in note for note in notes) is said


def test_planned_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that are planned for and not on this machine are named; those that are, and RPC workers, are not."""
    found = [FoundDevice(device=Device(name="CUDA0", memory_bytes=8 << 30), description="a card")]
    path = tiny_llama(tmp_path / "tiny.gguf")

    def said(*flags: str) -> list[str]:
        monkeypatch.setattr("ggufphys.commands.devices.find_devices", lambda: tuple(found))
        return [note for note in inspect_json(capsys, path, *flags)["notes"] if "planned for" in note]

    assert said("--device", "CUDA0=8GiB") == said("--rpc", "127.0.0.1:1=1GiB", "--device", "none") == []
    assert said("--device", "CUDA0=8GiB,CUDA1=8GiB") == [
        "planned for CUDA1, not seen on this machine; found here: CUDA0"
    ]
    found.clear()
    assert said("--device", "CUDA0=8GiB") == ["planned for CUDA0, not seen on this machine, where no GPU was found"]


def test_llama_server_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole line can be pasted, with the model behind -m; flags that predict nothing are named in notes."""
    line = f"-m {tiny_llama(tmp_path / 'tiny.gguf')} -c 1k -no-kvu --jinja --host 0.0.0.0 --port 80 --temp 0.7 --repack"
    document = inspect_json(capsys, *line.split(), "--override-kv", "a=int:1")

    assert document["params"]["n_ctx"] == 1024
    assert "these flags change nothing here: --jinja --host --port --temp" in document["notes"]
    assert "not considered, though memory may depend on them: --override-kv" in document["notes"]


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ("", "mmap"),
        ("--load-mode auto", "mmap"),
        ("-lm dio", "dio"),
        ("-dio", "dio"),
        ("--mlock", "mmap+mlock"),
        ("--mlock --no-mmap", "mlock"),
        ("-lm mlock", "mlock"),
        ("--no-mmap", "none"),
    ],
)
def test_load_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, mode: str) -> None:
    """Load modes go by llama.cpp's name, or by its older flags; the report tells file-backed from anonymous memory."""
    document = inspect_json(capsys, tiny_llama(tmp_path / "tiny.gguf"), *flags.split())
    process = document["memory"]["process"]

    assert document["params"]["load_mode"] == mode
    assert process["anon_bytes"] + process["file_bytes"] == document["memory"]["process_bytes"]
    assert [phase["name"] for phase in process["phases"]][-1] == "decode"
    assert (process["locked_bytes"] > 0) == ("mlock" in mode)


def test_unsupported_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An architecture that no llama.cpp knows: exit 4, the reason, and what its tensors say with an estimate."""
    path = write_model(tmp_path / "new.gguf", llama_metadata("llama9"), llama_tensors())
    code, out, err = run(capsys, "inspect", path)
    document = inspect_json(capsys, path, code=4)

    assert code == 4
    assert "architecture 'llama9' has no memory rule yet" in err
    assert f"no recorded llama.cpp knows the name, up to b{LATEST}" in err
    assert "weights mapped from new.gguf" in out
    assert document["loads"]["verdict"] == "refused"
    assert document["memory"]["context_bytes"] > 0
    assert {document["memory"]["basis"][what] for what in ("model", "context", "compute")} == {"estimate"}


@pytest.mark.parametrize("value", [5, ""])
def test_no_architecture_is_told(value: int | str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without a text for its architecture is said to lack it, and not to have one of an empty name."""
    metadata = {**llama_metadata(), "general.architecture": value}
    path = write_model(tmp_path / "new.gguf", metadata, llama_tensors())

    assert main(["inspect", str(path)]) == 4
    assert "names no architecture: expected a text" in capsys.readouterr().err


def test_newer_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An architecture of a newer llama.cpp: an estimate of exit code 0 for builds that know it, else exit 4."""
    path = write_model(tmp_path / "new.gguf", llama_metadata("beam"), llama_tensors())
    document = inspect_json(capsys, path)
    code, _, err = run(capsys, "inspect", path)

    assert code == 0
    assert "warning: architecture 'beam' has no memory rule yet" in err
    assert "in b11739, not yet in b11548" in err
    assert document["loads"]["verdict"] == "unknown"
    assert document["memory"]["basis"]["compute"] == "estimate"
    assert document["anatomy"]["layers"][0]["attention"]["n_head"] == llama_metadata()["llama.attention.head_count"]
    assert run(capsys, "inspect", path, "--llama-build", "b11548")[0] == 4


def test_an_estimate_is_not_called_impossible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever gives an estimate says that it is one, and whoever gives none says where it is to be had."""
    path = write_model(tmp_path / "new.gguf", llama_metadata("beam"), llama_tensors())
    code, _, given = run(capsys, "inspect", path)
    undecided, _, asked = run(capsys, "inspect", path, "--assert-fits", "1TiB")
    refused, _, elsewhere = run(capsys, "fit", path)

    assert (code, undecided, refused) == (0, 4, 4)
    assert given.rstrip().endswith(": its figures are estimated from its tensors")
    assert asked.rstrip().endswith("by which --assert-fits does not decide")
    assert elsewhere.rstrip().endswith("`ggufphys inspect` has an estimate from its tensors")
    assert "cannot" not in given + asked + elsewhere


def test_newer_architecture_without_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where even a size is missing, an estimate cannot be made: exit 4, with its tensors and weights all the same."""
    metadata = {k: v for k, v in llama_metadata("beam").items() if not k.endswith("block_count")}
    document = inspect_json(capsys, write_model(tmp_path / "new.gguf", metadata, llama_tensors()), code=4)
    nothing = inspect_json(capsys, write_model(tmp_path / "none.gguf", metadata, llama_tensors()[:1]), code=4)

    assert document["memory"]["basis"]["context"] == "unsupported"
    assert document["anatomy"]["n_embd"] > 0
    assert "anatomy" not in nothing


def test_type_from_the_future(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tensor type that nobody knows: exit 4, named, with what is known still printed."""
    path = write_model(tmp_path / "new.gguf", llama_metadata(), llama_tensors())
    raw = bytearray(path.read_bytes())
    place = raw.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 2 * 8  # behind its dims
    raw[place : place + 4] = (77).to_bytes(4, "little")
    path.write_bytes(raw)
    code, out, err = run(capsys, "inspect", path)
    document = inspect_json(capsys, path, code=4)

    assert code == run(capsys, "fit", path, "--memory", "1GiB")[0] == 4
    assert "tensor 'token_embd.weight' has type 77?, whose size is not known here" in err
    assert "in 20 tensors" in out
    assert document["memory"] is None
    assert document["model"]["bpw"] > 8  # of those that are known


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"general.architecture": "llama", "tokenizer.ggml.model": "gpt2"}, "vocab"),
        ({"general.architecture": "llama", "general.type": "adapter"}, "adapter"),
        ({"general.architecture": "clip", "general.type": "mmproj"}, "mmproj"),
        ({"general.type": "imatrix"}, "imatrix"),
    ],
)
def test_files_that_are_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metadata: dict[str, Any], kind: str
) -> None:
    """Attachments are described, without a prediction."""
    path = tmp_path / "file.gguf"
    path.write_bytes(encode_header(metadata, []).rstrip(b"\0"))  # the padding is not always there
    code, out, _ = run(capsys, "inspect", path)

    assert code == 0
    assert f"a GGUF of kind '{kind}'" in out
    assert "missing" not in out  # there are no tensors whose data could be
    assert inspect_json(capsys, path)["memory"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "usage: ggufphys SUBCOMMAND"),
        (["fly"], 2, "no subcommand 'fly'"),
        (["bench"], 2, "bench quality"),
        (["bench", "sped"], 2, "no subcommand 'bench sped'"),
        (["tensors"], 2, "one of the arguments MODEL -m/--model -mu/--model-url -hf/-hfr/--hf-repo is required"),
        (["inspect", "{tiny}", "-m", "{tiny}"], 2, "argument -m/--model: not allowed with argument MODEL"),
        (["inspect", "{tiny}", "--jinjja"], 2, "unrecognized arguments: --jinjja"),
        (["inspect", "{tiny}", "--port"], 2, "argument --port: expected 1 argument"),
        (["inspect", "{tiny}", "-c", "many"], 2, "'many' is not a count"),
        (["inspect", "{tiny}", "-ctk", "q3_k"], 2, "invalid choice: 'q3_k'"),
        (["inspect", "{tiny}", "-ctv", "q4_0", "-fa", "off"], 2, "needs flash attention, which is off"),
        (["inspect", "{tiny}", "-np", "300"], 2, "n_seq_max is 300, expected 1 to 256"),
        (["inspect", "{tiny}", "--n-outputs-max", "1", "-np", "2"], 2, "n_outputs_max is 1, expected at least"),
        (["inspect", "ftp://host/model.gguf"], 2, "expected a path, https://..., or hf:owner/repo"),
        (["measure", "hf:me/model"], 3, "`hf download me/model`"),
        (["verify", "https://host/model.gguf"], 2, "its weights are needed here"),
        (["serve", "-m", "https://host/model.gguf"], 2, "its weights are needed here"),
        (["inspect", "{folder}/nowhere.gguf"], 3, "nowhere.gguf: No such file or directory"),
        (["tensors", "{folder}"], 3, "a directory, expected a GGUF file"),
        (["inspect", "{text}"], 3, "not a GGUF file: it starts with b'hell'"),
        (["inspect", "{pointer}"], 3, "`git lfs pull` fetches the file"),
        (["inspect", "{cut}"], 3, "truncated"),
        (["tensors", "{cut}"], 3, "truncated"),
        (["inspect", "{half}"], 3, "llama.embedding_length: a key that this architecture needs is missing"),
        (["inspect", "{heads}"], 2, "do not divide this model's head size of 24"),
    ],
)
def test_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    """Bad input ends in one clear line and an exit code, and leaves stdout empty, but for what a header still says."""
    tiny = tiny_llama(tmp_path / "tiny.gguf")
    (tmp_path / "text").write_text("hello, world")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "cut").write_bytes(tiny.read_bytes()[:1000])
    metadata = llama_metadata()
    del metadata["llama.embedding_length"]
    write_model(tmp_path / "half", metadata, llama_tensors())
    heads = llama_metadata(
        attention__key_length=24, attention__value_length=24, rope__dimension_count=24, attention__head_count_kv=4
    )
    narrow = {"attn_q": (256, 96), "attn_k": (256, 96), "attn_v": (256, 96), "attn_output": (96, 256)}
    tensors = [replace(t, ne=narrow.get(t.name.split(".")[-2], t.ne)) for t in llama_tensors()]
    write_model(tmp_path / "heads", heads, tensors)
    names = {name: tmp_path / name for name in ("text", "pointer", "cut", "half", "heads")}
    arguments = [a.format(tiny=tiny, folder=tmp_path, **names) for a in arguments]
    if "heads" in " ".join(arguments):
        arguments += ["-ctk", "q8_0"]
    exit_code, out, err = run(capsys, *arguments)

    described = arguments[:1] == ["inspect"] and {"cut", "half"} & set(Path(a).name for a in arguments)
    assert (exit_code, bool(out)) == (code, bool(described))
    assert message in err
    assert "Traceback" not in err
    assert "usage: ggufphys inspect" not in err  # forty lines, above the one that counts


def test_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a tensor, the same in text and JSON."""
    path = tiny_llama(tmp_path / "tiny.gguf")
    _, text, _ = run(capsys, "tensors", path)
    code, out, _ = run(capsys, "tensors", path, "--json")
    rows = json.loads(out)["tensors"]

    assert code == 0
    assert len(rows) == 20
    assert rows[0] == {**rows[0], "name": "token_embd.weight", "ne": [256, 512], "type": "F16", "nbytes": 262144}
    assert all(row["name"] in text for row in rows)
    with path.open("rb") as file:
        assert file.seek(rows[-1]["file_offset"]) + rows[-1]["nbytes"] <= path.stat().st_size


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--version and --help exit 0; help names every subcommand."""
    assert run(capsys, "--version") == (0, f"ggufphys {__version__}\n", "")
    code, out, _ = run(capsys, "--help")

    assert code == 0
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Each module in the table exists and declares its arguments."""
    code, out, _ = run(capsys, *name.split(), "--help")

    assert code == 0
    assert f"usage: ggufphys {name}" in out


def test_help_needs_no_extra() -> None:
    """Each subcommand's --help is there with the packages of the plain installation alone."""
    extras = (  # as they are imported
        "flask", "gguf", "httptools", "jinja2", "llama_cpp", "matplotlib", "orjson", "prometheus_client", "psutil",
        "waitress", "werkzeug",
    )  # fmt: skip
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({extras}))\n"
        "from ggufphys.cli import COMMANDS, main\n"
        "def said(name):\n"
        "    try: return main([*name.split(), '--help'])\n"
        "    except SystemExit as stop: return stop.code\n"
        "print({name: code for name in COMMANDS if (code := said(name))}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr == "{}\n"


def test_closed_pipe(tmp_path: Path) -> None:
    """A reader that closes the pipe early is no error."""
    path = tiny_llama(tmp_path / "tiny.gguf")
    command = f"{sys.executable} -m ggufphys tensors {path} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_inspect_imports_nothing_heavy(tmp_path: Path) -> None:
    """`inspect` runs on the standard library alone."""
    path = tiny_llama(tmp_path / "tiny.gguf")
    code = (
        "import sys; from ggufphys.cli import main; main(sys.argv[1:]);"
        "print(sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, "inspect", str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )

    assert done.stderr.strip() == "['__main__', 'ggufphys']"
