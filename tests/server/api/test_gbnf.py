"""Grammars that would harm the process that reads them are refused before; what llama.cpp takes is taken."""

import json
from collections.abc import Iterator

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


@pytest.mark.parametrize(
    ("schema", "is_taken"),
    [
        ({"type": "string", "maxLength": 3000}, True),  # llama.cpp reads more than 2,000 as any number
        ({"type": "string", "minLength": 3000}, False),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 3000}, True),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3000}, False),
        ({"type": "string", "pattern": "^((a{1,40}){1,40})*$"}, True),
    ],
)
def test_counts_are_not_written_out(schema: object, is_taken: bool) -> None:
    """A schema with a large count is a small grammar, which is taken or refused."""
    text = schema_grammar(schema, "json_schema")
    assert len(text) < 2000
    if is_taken:
        check_grammar(text)
    else:
        with pytest.raises(GrammarError, match="times"):
            check_grammar(text)


@pytest.mark.parametrize(
    ("schema", "fitting", "others"),
    [
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"abc"'], ['"a"', '"abcd"']),
        ({"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 3}, ["[1, 1]", "[1,1,1]"], ["[1]", "[]"]),
        ({"type": "array", "items": {"const": 1}, "maxItems": 1}, ["[]", "[1]"], ["[1, 1]"]),
        ({"type": "array", "items": {"const": 1}, "minItems": 1}, ["[1]", "[1, 1, 1]"], ["[]"]),
        ({"enum": ['a"b\\c', "x\ny", "é"]}, ['"a\\"b\\\\c"', '"x\\ny"', '"é"'], ['"a"', '"x\ny"']),
        ({"properties": {'"]': {"const": 1}}, "required": ['"]']}, ['{"\\"]":1}'], ["{}"]),
        ({"type": "string", "pattern": "^a{2}(bc){1,2}$"}, ['"aabc"', '"aabcbc"'], ['"abc"', '"aa"', '"aabcbcbc"']),
    ],
)
def test_counts(vocab: object, schema: object, fitting: list[str], others: list[str]) -> None:
    """Texts with as many items as the schema allows follow its grammar, others do not."""
    text = schema_grammar(schema, "json_schema")
    assert [follows(vocab, text, each) for each in fitting] == [True] * len(fitting)
    assert [follows(vocab, text, each) for each in others] == [False] * len(others)


def follows(vocab: object, grammar: str, text: str) -> bool:
    """Whether the text may be an answer and its end, by llama.cpp."""
    raw = text.encode()
    tokens = (llama_cpp.llama_token * (len(raw) + 1))()
    n = llama_cpp.llama_tokenize(vocab, raw, len(raw), tokens, len(raw), False, False)
    sampler = llama_cpp.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
    try:
        for token in (*tokens[:n], llama_cpp.llama_vocab_eos(vocab)):
            one = (llama_cpp.llama_token_data * 1)(llama_cpp.llama_token_data(token, 1.0, 0.0))
            array = llama_cpp.llama_token_data_array(one, 1, -1, False)
            llama_cpp.llama_sampler_apply(sampler, array)
            if one[0].logit == float("-inf"):
                return False
            llama_cpp.llama_sampler_accept(sampler, token)
        return True
    finally:
        llama_cpp.llama_sampler_free(sampler)


@pytest.fixture(scope="module")
def vocab() -> Iterator[object]:
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
