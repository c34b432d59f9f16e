"""`ggufphys inspect --template`: what it finds in small templates, each made wrong in one way."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from ggufphys.cli import main
from server.lint.llama_jinja import lacking
from server.template.chat_template import ChatTemplate
from tests.ggufphys.models import llama_metadata, write_model
from tests.server.fake_engine import INFO

SPECIAL: Final = ("<unk>", "<s>", "</s>", "<|start|>", "<|im_end|>")
CHARACTERS: Final = tuple(chr(code) for code in range(32, 127))
ROLE: Final = "<|start|>{{ m.role }}\n"
ARGUMENTS: Final = "{{ a if a is string else a|tojson }}"
SOUND: Final = (
    "{% for m in messages %}{% if m.content is string %}{% set said = m.content %}"
    "{% else %}{% set said = m.content[0].text %}{% endif %}"
    f"{ROLE}{{{{ said }}}}"
    "{% for c in m.tool_calls or [] %}"
    f"{{% set a = c.function.arguments %}}{ARGUMENTS}{{% endfor %}}</s>{{% endfor %}}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    "{% for t in tools or [] %}{{ t|tojson }}{% endfor %}"
)


@pytest.fixture
def findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The findings of a template in a file, texts by (kind, fixture), after a check of the exit code."""

    def of(template: str, *, code: int = 0, **keys: Any) -> dict[tuple[str, str], str]:
        assert main(["inspect", "--template", "--json", str(model(tmp_path, template, **keys))]) == code
        document = json.loads(capsys.readouterr().out)
        return {(f["kind"], f["fixture"]): f["text"] for f in document["findings"]}

    return of


def model(folder: Path, template: str, **keys: Any) -> Path:
    """A header with a small vocabulary; `keys` are more of tokenizer.ggml's."""
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *CHARACTERS]
    words: dict[str, Any] = {
        "model": "llama", "tokens": tokens, "scores": [0.0] * len(tokens), "eos_token_id": 2, "bos_token_id": 1,
        "token_type": [2, 3, 3, 3, 3, *([6] * 256), *([1] * len(CHARACTERS))],
    } | keys  # fmt: skip
    more = {"tokenizer.chat_template": template} if template else {}
    metadata = llama_metadata(vocab_size=len(tokens)) | {_key(k): v for k, v in words.items()}
    return write_model(folder / "model.gguf", metadata | more, [])


def _key(name: str) -> str:
    """`../` leads out of tokenizer.ggml."""
    return f"tokenizer.{name.removeprefix('../')}" if name.startswith("../") else f"tokenizer.ggml.{name}"


def test_a_sound_template(findings: Any) -> None:
    """Of a template that shows all it is given, only that it takes any word for a role is worth a word."""
    assert set(findings(SOUND)) == {("developer", "developer, user")}


def refusing(condition: str) -> str:
    """The beginning of a turn that is refused on a condition."""
    return f"{{% if {condition} %}}{{{{ raise_exception('no') }}}}{{% endif %}}{ROLE}"


# What is put in the place of what in the sound template, and the finding that comes of it: kind, fixture, words of it.
WRONG: Final = {
    "system ignored": ("in messages %}", "in messages if m.role != 'system' %}", "lost", "system, user", "ignores"),
    "system refused": (ROLE, refusing("m.role == 'system'"), "refused", "system, user", "refuses the system role: "),
    "tool refused": (ROLE, refusing("m.role == 'tool'"), "refused", "tool result", "refuses the tool role: "),
    "parts lost": ("m.content[0].text", "''", "lost", "typed content", "silently; serve shows it"),
    "strings lost": ("set said = m.content %}", "set said = '' %}", "lost", "user", "a string; serve shows it"),
    "parts as a list": ("m.content[0].text", "m.content", "typed content", "typed content", "Python list"),
    "arguments quoted": (ARGUMENTS, "{{ a|tojson }}", "arguments", "call, string", "JSON within JSON; serve gives"),
    "arguments in Python": (ARGUMENTS, "{{ a }}", "arguments", "call, object", "as Python does"),
    "tools ignored": ("tools or []", "[]", "lost", "tools", "doesn't show tools; serve shows"),
    "alternation": (ROLE, refusing("m.role == (loop.previtem|default({})).role"), "refused", "user, user", "alternate"),
    "stripped": ("{{ said }}", "{{ said|trim }}", "strips", "user", "white space"),
    "no generation prompt": ("add_generation_prompt", "true", "generation prompt", "user", "changes nothing"),
    "thinking": (ROLE, "{% if enable_thinking %}{% endif %}" + ROLE, "thinking", "thinking", "changes nothing"),
    "BOS removed": ("{% for m", "{{ bos_token }}{% for m", "BOS", "user", "serve and llama-server remove it"),
    "BOS twice": ("{% for m", "\n{{ bos_token }}{% for m", "BOS", "user", "where no server removes it"),
    "words for control tokens": ("</s>", "</s><|im_start|>", "control token", "", "<|im_start|> is no token"),
    "no end": ("</s>", "\n", "end of turn", "several turns", "ends no generation"),
    "an end by its text": ("</s>", "<|im_end|>", "end of turn", "several turns", "neither eos nor eot"),
    "tools in Python": ("{{ t|tojson }}", "{{ t }}", "llama.cpp", "tools", "prints nothing of an object"),
    "llama.cpp": ("{{ said }}", "{{ said }}{{ [1]|unique|first }}", "llama.cpp", "", "the filter 'unique'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong(findings: Any, name: str) -> None:
    """Each thing that can be wrong with a template is found where it is shown, and said as what it is."""
    old, new, *finding, words = WRONG[name]
    assert old in SOUND

    assert words in findings(SOUND.replace(old, new, 1))[tuple(finding)]


def test_an_end_that_the_file_names(findings: Any) -> None:
    """An end of turn that the file calls its eot is sound, and so is BOS where the tokenizer adds none."""
    template = "{{ bos_token }}" + SOUND.replace("</s>", "<|im_end|>")

    found = findings(template, eot_token_id=4, add_bos_token=False)

    assert set(found) == {("developer", "developer, user")}


def test_what_cannot_be_used(findings: Any) -> None:
    """A template that does not compile, or that loses or refuses one question, is a fault: exit code 1."""
    assert findings("{% for %}", code=1).keys() == {("syntax", "")}
    assert findings("{{ " + "(" * 2000 + " }}", code=1).keys() == {("syntax", "")}
    assert ("refused", "user") in findings("{{ raise_exception('no') }}", code=1)
    assert ("lost", "user") in findings("nothing", code=1)


def test_a_template_without_end(findings: Any) -> None:
    """A template that goes on and on is a fault, found in bounded time."""
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

    assert "goes on for too long" in findings(endless, code=1)["endless", "user"]


def test_the_template_of_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's tool_use is tried too, with tools alone, and one of another name is told to be of no use."""
    own = SOUND.replace("{% for m", "{{ raise_exception('no tools') if tools is not defined }}{% for m")
    names = {"chat_template.tool_use": own.replace("{{ said }}", "{{ said|trim }}"), "chat_template.rag": SOUND}
    path = model(tmp_path, SOUND, **{f"../{name}": text for name, text in names.items()})

    assert main(["inspect", "--template", "--json", str(path)]) == 0

    document = json.loads(capsys.readouterr().out)
    found = {(f["template"], f["kind"]) for f in document["findings"]}
    tried = {(f["template"], f["name"]) for f in document["fixtures"]}
    assert found == {("", "developer"), ("tool_use", "developer"), ("tool_use", "strips"), ("rag", "unused template")}
    assert {("", "user"), ("tool_use", "user"), ("tool_use", "tool result")} < tried
    assert ("", "tool result") not in tried
    assert main(["inspect", "--template", str(path)]) == 0
    assert "chat template tool_use, for conversations with tools, of" in capsys.readouterr().out


def test_no_template(findings: Any) -> None:
    """Without a template ChatML is tried, and its tokens are looked for in the vocabulary."""
    assert {("no template", ""), ("control token", "")} < findings("").keys()


def test_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text has what a template makes of a conversation, what serve does where that differs, and the findings."""
    typed = SOUND.replace("m.content[0].text", "''")

    assert main(["inspect", "--template", str(model(tmp_path, typed))]) == 0

    out = capsys.readouterr().out
    assert (
        'typed content\n  given   "<|start|>user\\n</s><|start|>assistant\\n"\n  served  "<|start|>user\\nWhat' in out
    )
    assert "note: loses the text of typed content silently; serve shows it all the same [typed content]" in out


def test_it_is_a_question_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other questions beside it are refused, as two models are."""
    path = str(model(tmp_path, SOUND))

    assert main(["inspect", "--template", path, "--explain"]) == 2
    assert main(["inspect", "--template", path, path]) == 2
    assert "--template is a question by itself" in capsys.readouterr().err


def test_without_jinja(tmp_path: Path) -> None:
    """Where jinja2 is not installed, the extra that has it is named."""
    script = "import sys; sys.modules['jinja2'] = None; from ggufphys.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "inspect", "--template", str(model(tmp_path, SOUND))]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "extra 'serve'" in done.stderr


LACKING: Final = {
    "{{ a|unique }}": "filter 'unique'", "{{ a|e }}": "filter 'e'", "{{ a|sum }}": "filter 'sum'",
    "{{ a|map('upper') }}": "filter 'map'", "{{ a|tojson(sort_keys=true) }}": "sort_keys",
    "{{ ','.join(a) }}": "method 'join'", "{{ a.splitlines() }}": "method 'splitlines'",
    "{% for m in a %}{{ loop.cycle('a') }}{% endfor %}": "method 'cycle'", "{{ joiner(',') }}": "function 'joiner'",
    "{{ a is filter }}": "test 'filter'", "{{ a|selectattr('b', 'match', 'c') }}": "test 'match'",
    "{% with b = 1 %}{% endwith %}": "statement 'with'", "{% raw %}a{% endraw %}": "statement 'raw'",
    "{{ 3 // 2 }}": "operator '//'", "{{ 3 ** 2 }}": "operator '**'",
    "{% for m in a recursive %}{% endfor %}": "recursive",
}  # fmt: skip


@pytest.mark.parametrize("source", LACKING)
def test_what_llama_cpp_lacks(source: str) -> None:
    """What llama.cpp's Jinja has not is told: a template that comes to it keeps llama-server from starting."""
    environment = ChatTemplate.of(INFO).template.environment

    (found,) = lacking(environment, source)

    assert LACKING[source] in found


def test_what_llama_cpp_has() -> None:
    """Nothing is said of what it has, a template's own macros among it."""
    environment = ChatTemplate.of(INFO).template.environment
    source = (
        "{% macro f(x) %}{{ x|trim|upper }}{% endmacro %}{{ f('a') }}{{ a|map(attribute='b')|join(',') }}"
        "{{ a.strip().split('\\n')[-1] }}{{ range(3)|list|length }}{% set n = namespace(b=1) %}"
        "{{ a|selectattr('b', 'equalto', 'c')|list|count }}{% call f('x') %}{% endcall %}{{ strftime_now('%d') }}"
    )

    assert not lacking(environment, source)
