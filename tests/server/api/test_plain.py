"""Control tokens that users write are text: the very tokens that llama.cpp makes of them where they mean nothing."""

from pathlib import Path

import pytest

from ggufphys import open_gguf
from ggufphys.gguf.writer import WriteValue
from refengine.text.llama import LlamaTokenizer
from server.api.conversation.plain import marked, tokens_of
from tests.refengine.text import vocabularies

KINDS: dict[str, dict[str, WriteValue]] = {
    "a space in front of words": vocabularies.spm(add_space_prefix=True),
    "SentencePiece without": vocabularies.spm(add_space_prefix=False),
    "byte-level BPE": vocabularies.bpe("qwen2"),
}
SAID = (
    "the<mask>self", "<mask>", " <mask> ", "<mask><mask>\n\n<mask>", "<<mask>>", "<mask", "été <mask> the\n\n",
    "<tool><mask><tool>", "<|im_sep|>", "<|im_sep|><mask>漢字",
)  # fmt: skip


class Words(LlamaTokenizer):
    """llama.cpp's tokenizer, asked as an engine is."""

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        return tuple(self.piece(token, special=True) for token in tokens)


def words(path: Path, keys: dict[str, WriteValue], *, but: tuple[str, ...] = ()) -> Words:
    """The tokenizer of a file; control tokens `but` have other names, so that those are text."""
    tokens = keys["tokens"]
    assert isinstance(tokens, list)
    renamed = [f"<|no{token}|>" if token in but else token for token in tokens]
    return Words(open_gguf(vocabularies.write(path, {**keys, "tokens": renamed})))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_is_read_as_text(kind: str, tmp_path: Path) -> None:
    """The template's control tokens are tokens, the same in what is said are text, whole as any other text there."""
    ours = words(tmp_path / "ours.gguf", KINDS[kind])
    theirs = words(tmp_path / "theirs.gguf", KINDS[kind], but=("<mask>", "<|im_sep|>"))
    for said in SAID:
        (message,) = marked([{"role": "user", "content": said}], ours)
        for before, after in (("<|im_start|>", "<|im_start|>the"), ("<|im_start|>user\n", "\n<|im_start|>"), ("", "")):
            found = tokens_of(f"{before}{message['content']}{after}", ours)
            assert found == theirs.tokenize(f"{before}{said}{after}"), (kind, said, before)
