"""Grammars that would harm the process that reads them are refused before; what llama.cpp takes is taken."""

import json

import llama_cpp
import pytest
from flask.testing import FlaskClient

from ggufphys.embedded import MODEL
from server.api.constraint import schema_grammar
from server.api.gbnf import GrammarError, check_grammar, count_fault

CHAIN = "\n".join(f"r{i} ::= r{i + 1}" for i in range(60)) + '\nr60 ::= "x"\nroot ::= r0'
TWICE = "\n".join(f"r{i} ::= r{i + 1} | r{i + 1}" for i in range(9)) + '\nr9 ::= "x"\nroot ::= r0'
WAYS = "\n".join(f"r{i} ::= r{i + 1}? r{i + 1}?" for i in range(4)) + '\nr4 ::= "x"\nroot ::= r0'


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that small grammars reach, so that none stands here that would be too much for anybody."""
    for name, bound in (("DEPTH", 50), ("ELEMENTS", 1000), ("WAYS", 12), ("STEPS", 500)):
        monkeypatch.setattr(f"server.api.gbnf.MOST_{name}", bound)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('root ::= "a"{2001}', "more than 2,000 times"),
        ('root ::= "0123456789"{101}', "more than 1,000 elements"),
        ("root ::= " + "(" * 60 + '"a"' + ")" * 60, "groups within one another"),
        ("root ::= " + " | ".join(f'"{i}"' for i in range(13)), "13 ways"),
        (CHAIN, "too often"),
        (TWICE, "too often"),
        (WAYS, "ways"),
        ('root ::= a | "b"\na ::= root "c"', "begins with itself"),
        ('root ::= e root "c" | "d"\ne ::= ""', "begins with itself"),
        ('root ::= "a" other', "'other' is named and not there"),
        ('a ::= "b"', "no rule 'root'"),
        ('root ::= "a" (', "not closed"),
        ('root ::= "a" )', "not opened"),
        ('"a"', "expected the name of a rule"),
        ('root ::= "a', "no GBNF at character 9"),
        ("root ::= *", "nothing in front"),
        ('root ::= ( "a"\nb ::= "c" )', "not closed"),
    ],
)
@pytest.mark.usefixtures("near")
def test_refused(text: str, why: str) -> None:
    """Each is refused by what is wrong with it."""
    with pytest.raises(GrammarError, match=why):
        check_grammar(text)


def test_counts_that_make_no_sense() -> None:
    """A repetition has a beginning that llama.cpp takes, and an end behind it or none."""
    assert [count_fault(*each) for each in ((0, 0), (2, 2), (2, None), (2000, 10**6))] == [""] * 4
    assert count_fault(2001, None) == "more than 2,000 times"
    assert count_fault(4, 3) == "at least 4 and at most 3"


TAKEN = [
    "root ::= ",
    'root ::= ("a"*)* b+\nb ::= [^\\]"\\n-]? . <[5]> !<[6]>',
    'root ::= "a" # to the end\n  # of the line\n\nb ::= "c"',
    'root ::=\n "a" |\n "b"',
    'root ::= ("a"\n "b")\r\nc ::= "\\"\\\\" root{2} root{2,} root{ 1 , 3 }',
    'root ::= (("a"{90}){90}){90}',
    'root ::= "a"{2}{3}{4}?',
    'root ::= "a" root | "a"',
    'root ::= "" [] "é"+',
    'root ::= "a"{0,100000}',
    *(
        schema_grammar(schema, "json_schema")
        for schema in (
            {"type": "object"},
            {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(60)}},
            {"type": "array", "items": {"enum": [f"v{i}" for i in range(1000)]}, "minItems": 3, "maxItems": 50},
            {"type": "string", "pattern": "^(a|b){1,20}[0-9]+$", "minLength": 2},
            {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}, {"type": "null"}]},
            {"type": "integer", "minimum": -12345, "maximum": 98765},
        )
    ),
]


@pytest.fixture(scope="module")
def vocab() -> object:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(MODEL).encode(), params)
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)


@pytest.mark.parametrize("number", range(len(TAKEN)))
def test_taken(vocab: object, number: int) -> None:
    """What llama.cpp takes of grammars that are written, or made of schemas, is taken here."""
    text = TAKEN[number]
    sampler = llama_cpp.llama_sampler_init_grammar(vocab, text.encode(), b"root")
    assert sampler
    llama_cpp.llama_sampler_free(sampler)
    check_grammar(text)


def test_by_name(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field that it came in is named, whichever that is."""
    monkeypatch.setattr("server.api.gbnf.MOST_WAYS", 50)
    bad = 'root ::= "a"{2001}'
    assert (
        client.post("/v1/completions", json={"prompt": "a", "grammar": bad}).get_json()["error"]["param"] == "grammar"
    )
    schema = {"enum": [f"v{i}" for i in range(60)]}
    for field, value in (
        ("json_schema", schema),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": schema}}),
    ):
        body = json.dumps({"prompt": "a", field: value})
        client.application.config["MAX_CONTENT_LENGTH"] = len(body) + 1
        refused = client.post("/v1/completions", data=body)
        assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, field)
