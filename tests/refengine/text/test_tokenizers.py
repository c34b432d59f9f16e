"""Our tokenizers against llama.cpp's, on the same file."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import llama_cpp as api
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufphys import GGUFError, MissingExtraError, UnsupportedError, open_gguf
from ggufphys.embedded import MODEL
from ggufphys.gguf.writer import WriteValue
from refengine.text.llama import LlamaTokenizer
from refengine.text.open import AnyTokenizer, open_tokenizer
from refengine.text.pretokenizers import TABLE
from refengine.text.spm import SPMTokenizer
from refengine.text.tokenizer import Tokenizer
from tests.refengine.text import vocabularies
from tests.refengine.text.vocabularies import texts

Both = tuple[AnyTokenizer, LlamaTokenizer]
Open = Callable[[dict[str, WriteValue]], Both]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """A function that gives our tokenizer and llama.cpp's of a vocabulary."""

    def open_both(keys: dict[str, WriteValue]) -> Both:
        path = vocabularies.write(tmp_path_factory.mktemp("vocab") / "vocab.gguf", keys)
        gguf = open_gguf(path)
        ours = open_tokenizer(gguf)
        assert isinstance(ours, Tokenizer)
        return ours, LlamaTokenizer(gguf)

    return open_both


def assert_alike(ours: AnyTokenizer, theirs: LlamaTokenizer) -> None:
    """The same tokens for many texts, the same bytes for all tokens, and the same tokens that mean something."""

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(texts(), st.booleans(), st.booleans())
    def check(text: str, add_special: bool, parse_special: bool) -> None:
        found = ours.tokenize(text, add_special=add_special, parse_special=parse_special)
        assert found == theirs.tokenize(text, add_special=add_special, parse_special=parse_special)
        assert ours.text(found) == theirs.text(found)

    check()
    for special in (False, True):
        pieces = [ours.piece(token, special=special) for token in range(ours.n_vocab)]
        assert pieces == [theirs.piece(token, special=special) for token in range(theirs.n_vocab)]
    for name in ("bos", "eos", "adds_bos", "end_tokens", "suppressed_tokens"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("pre", [row.names[-1] for row in TABLE if row.byte_level])
def test_bpe(both: Open, pre: str) -> None:
    """Byte-level BPE gives llama.cpp's tokens, however the text is cut before."""
    assert_alike(*both(vocabularies.bpe(pre)))


@pytest.mark.parametrize(("pre", "model"), [("gemma4", "gpt2"), ("sarvam-moe", "gpt2"), ("", "gemma4")])
def test_bpe_over_characters(both: Open, pre: str, model: str) -> None:
    """BPE over characters gives llama.cpp's tokens, unknown characters as bytes."""
    assert_alike(*both(vocabularies.characters_bpe(pre, model)))


@pytest.mark.parametrize("more", [[], ["e▁"], ["e▁", "e▁s"]], ids=" ".join)
def test_spm(both: Open, more: list[str]) -> None:
    """SentencePiece's BPE gives llama.cpp's tokens, whether or not some go on behind a word's end."""
    keys = vocabularies.spm()
    for name, value in (("tokens", more), ("token_type", [1] * len(more)), ("scores", [0.5] * len(more))):
        column = keys[name]
        assert isinstance(column, list)
        keys[name] = [*column, *value]
    assert_alike(*both(keys))


# fmt: off
OPTIONS: dict[str, dict[str, WriteValue]] = {
    "no space before": {"add_space_prefix": False},
    "BOS and EOS": {"add_bos_token": True, "add_eos_token": True},
    "no BOS": {"add_bos_token": False},
    "BOS beyond the vocabulary": {"bos_token_id": 10**6},
    "EOT and EOM": {"eot_token_id": 7, "eom_token_id": 8},
    "a gap's end": {"fim_pad_token_id": 9, "fim_sep_token_id": 10},
    "suppressed tokens": {"suppress_tokens": [3, 5, -1, 10**6]},
    "Phi-3": {"general.name": "Phi-3-mini"},
    "Jina": {"pre": "jina-v2-code"},
    "ModernBERT": {"general.name": "modern-bert"},
}
# fmt: on


@pytest.mark.parametrize("keys", OPTIONS.values(), ids=OPTIONS)
def test_options(both: Open, keys: dict[str, WriteValue]) -> None:
    """What the file says of special tokens is heeded as llama.cpp heeds it."""
    assert_alike(*both(vocabularies.bpe(str(keys["pre"])) if "pre" in keys else vocabularies.spm(**keys)))


@pytest.mark.parametrize(
    "more",
    [
        ["<|end|>", "<|return|>", "<|call|>", "<|channel|>", "<|message|>"],
        ["<|end|>", "<|flush|>", "<|calls|>"],
        ["<|end|>", "<|return|>"],
        ["</s>", "<|tool_response>"],
        ["</s>", "<eos>"],
        ["<PRE>", "<SUF>", "<MID>", "<REPO>", "<|file_sep|>"],
        [""],
    ],
    ids=" ".join,
)
def test_tokens_known_by_their_text(both: Open, more: list[str]) -> None:
    """Tokens that mean something by their text alone do so here as well."""
    keys = vocabularies.bpe("gpt-2")
    tokens, types = keys["tokens"], keys["token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert_alike(*both(keys | {"tokens": [*tokens, *more], "token_type": [*types, *([1] * len(more))]}))


def test_embedded_model() -> None:
    """On the embedded model's vocabulary both agree, and a text comes back from its tokens."""
    with open_gguf(MODEL) as gguf:
        ours = open_tokenizer(gguf)
        source = Path(__file__).read_text()

        assert_alike(ours, LlamaTokenizer(gguf))
        assert ours.text(ours.tokenize(source)) == source


def test_every_tokenizer_that_llama_cpp_has(tmp_path: Path) -> None:
    """A tokenizer that is not written here is llama.cpp's own."""
    keys: dict[str, WriteValue] = {
        "model": "bert",
        "tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁the", "▁cat", "s"],
        "token_type": [3, 3, 3, 3, 1, 1, 1],
        "bos_token_id": 2,
        "seperator_token_id": 3,
        "unknown_token_id": 1,
    }
    with open_gguf(vocabularies.write(tmp_path / "bert.gguf", keys)) as gguf:
        found = open_tokenizer(gguf)

        assert isinstance(found, LlamaTokenizer)
        assert found.tokenize("The cats") == (2, 4, 5, 6, 3)


def test_logger_is_left_alone(both: Open) -> None:
    """Loading a vocabulary leaves llama.cpp's one logger as it was."""
    lines = list[bytes]()
    callback = api.llama_log_callback(lambda level, text, user_data: lines.append(text))
    before, user_data = api.llama_log_callback(), ctypes.c_void_p()
    api.llama_log_get(ctypes.byref(before), ctypes.byref(user_data))
    api.llama_log_set(callback, None)
    try:
        _, theirs = both(vocabularies.spm())
        assert lines == []
        theirs.tokenize("<s>")
    finally:
        api.llama_log_set(before, user_data)

    assert any(b"BOS" in line for line in lines)


def test_llama_cpp_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that only llama.cpp has says so where that is not installed; our own do without."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    keys: dict[str, WriteValue] = {"model": "rwkv", "tokens": ["a", "b"]}
    message = r"tokenizer 'rwkv' needs llama.cpp's.*extra 'all'"
    path = vocabularies.write(tmp_path / "rwkv.gguf", keys)
    with open_gguf(path) as gguf, pytest.raises(MissingExtraError, match=message):
        open_tokenizer(gguf)
    with open_gguf(MODEL) as gguf:
        assert open_tokenizer(gguf).tokenize("a")


# fmt: off
BAD: dict[str, tuple[dict[str, WriteValue], str]] = {
    "a token twice": ({"model": "llama", "tokens": ["a", "b", "a"]}, "has 'a' twice"),
    "a token twice for llama.cpp": ({"model": "rwkv", "tokens": ["a", "b", "a"]}, "a token twice"),
    "no tokens": ({"model": "llama"}, "no tokenizer.ggml.tokens"),
    "no merges": ({"model": "gpt2", "tokens": ["a"]}, "no tokenizer.ggml.merges"),
    "too few scores": ({"model": "llama", "tokens": ["a", "b"], "scores": [0.0]}, "scores has 1 elements, expected 2"),
    "too few types": ({"model": "llama", "tokens": ["a", "b"], "token_type": [1]}, "token_type has 1 elements"),
    "a tokenizer nobody has": ({"model": "martian", "tokens": ["a"]}, "llama.cpp could not read the vocabulary"),
}
# fmt: on


@pytest.mark.parametrize(("keys", "message"), BAD.values(), ids=BAD)
def test_refused(tmp_path: Path, keys: dict[str, WriteValue], message: str) -> None:
    """A vocabulary that cannot be used is refused, and the message says why."""
    with open_gguf(vocabularies.write(tmp_path / "bad.gguf", keys)) as gguf, pytest.raises(GGUFError, match=message):
        open_tokenizer(gguf)


def test_unknown_cut(tmp_path: Path) -> None:
    """A way to cut that nobody knows is named."""
    path = vocabularies.write(tmp_path / "martian.gguf", vocabularies.bpe("martian"))
    with open_gguf(path) as gguf, pytest.raises(UnsupportedError, match="tokenizer.ggml.pre is 'martian'"):
        open_tokenizer(gguf)


def test_no_vocabulary(tmp_path: Path) -> None:
    """A file without a tokenizer takes tokens, not text."""
    with (
        open_gguf(vocabularies.write(tmp_path / "none.gguf", {})) as gguf,
        pytest.raises(UnsupportedError, match="text"),
    ):
        open_tokenizer(gguf)


def test_byte_without_a_token(tmp_path: Path) -> None:
    """A byte that no token stands for is the unknown token, or an error where there is none."""
    tokens = ["a", "<s>", "</s>", "▁"]
    with open_gguf(vocabularies.write(tmp_path / "a.gguf", {"model": "llama", "tokens": tokens})) as gguf:
        tokenizer = SPMTokenizer(gguf)

        assert tokenizer.tokenize("aé", add_special=False) == (3, 0, 0, 0)
        tokenizer.vocab = type(tokenizer.vocab)(**{
            name: getattr(tokenizer.vocab, name) for name in tokenizer.vocab.__slots__
        } | {"unk": None})  # fmt: skip
        with pytest.raises(GGUFError, match="0xC3"):
            tokenizer.tokenize("é")


def test_surrogates(both: Open) -> None:
    """What is no Unicode text is refused as Python refuses to encode it."""
    ours, _ = both(vocabularies.spm())

    with pytest.raises(UnicodeEncodeError):
        ours.tokenize("\ud800")


def test_names_are_known_once() -> None:
    """No name of a way to cut stands in two rows."""
    names = [name for row in TABLE for name in row.names]

    assert len(names) == len(set(names))
