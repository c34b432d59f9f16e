"""Tokens of a text, and the text of tokens: in llama-server's words, and in vLLM's, which evaluation programs use.

`/tokenize` is asked in vLLM's words where there is a `prompt` or `messages`, and in llama-server's else. With
`/tokenizer_info` that is what lm-eval's remote tokenizer needs.

Source: llama.cpp 0c1e570 tools/server/server-context.cpp, post_tokenize; vllm 0.11 vllm/entrypoints/openai/protocol.py,
TokenizeRequest, DetokenizeResponse, TokenizerInfoResponse; lm-eval 0.4.13 lm_eval/utils.py, RemoteTokenizer.
"""

from collections.abc import Sequence
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from server.api.conversation.conversations import Conversations
from server.api.errors import bad_request
from server.api.prompts import are_tokens, mixed_tokens
from server.api.schema import Fields, read_body
from server.service import Service

TOKENIZER: Final = "llama.cpp"  # where others name a class of Python's


def blueprint(service: Service, conversations: Conversations) -> Blueprint:
    """Both ways, and what there is to know of the tokenizer."""
    routes = Blueprint("tokens", __name__)
    engine = service.engine

    @routes.post("/tokenize")
    def tokenize() -> Response:
        fields = read_body(request)
        if fields.get("messages") is not None:
            return counted(fields, _shown(conversations.prompt(conversations.read(fields)).tokens))
        if fields.get("content") is None and fields.get("prompt") is not None:
            text, special = fields.string("prompt"), fields.boolean("add_special_tokens", True)
            return counted(fields, engine.tokenize(text, add_special=special))
        content = fields.get("content")
        parts = content if isinstance(content, list) else [fields.string("content")]
        tokens = mixed_tokens(
            fields, "content", parts, engine, add_special=fields.boolean("add_special", False),
            parse_special=fields.boolean("parse_special", True),
        )  # fmt: skip
        if not fields.boolean("with_pieces", False):
            return jsonify({"tokens": list(tokens)})
        pieces = engine.pieces(tokens)
        return jsonify({"tokens": [{"id": t, "piece": _piece(p)} for t, p in zip(tokens, pieces, strict=True)]})

    def counted(fields: Fields, tokens: Sequence[int]) -> Response:
        strings = None
        if fields.boolean("return_token_strs", False):
            strings = [piece.decode(errors="replace") for piece in engine.pieces(tuple(tokens))]
        return jsonify({
            "count": len(tokens), "max_model_len": engine.info.n_ctx_seq, "tokens": list(tokens),
            "token_strs": strings,
        })  # fmt: skip

    @routes.post("/detokenize")
    def detokenize() -> Response:
        tokens = read_body(request).array("tokens")
        if not are_tokens(tokens, engine.info.n_vocab):
            raise bad_request(
                f"tokens has something else than integers from 0 to {engine.info.n_vocab - 1}", param="tokens"
            )
        text = engine.detokenize(tuple(tokens))
        return jsonify({"content": text, "prompt": text})

    @routes.get("/tokenizer_info")
    def tokenizer_info() -> Response:
        info = engine.info
        return jsonify({
            "tokenizer_class": TOKENIZER, "bos_token": info.bos_text or None, "eos_token": info.eos_text or None,
            "pad_token": None, "add_bos_token": info.adds_bos, "model_max_length": info.n_ctx_seq,
            "chat_template": service.chat_template.source,
        })  # fmt: skip

    return routes


def _shown(tokens: Sequence[int]) -> list[int]:
    """Tokens, those that stand for images and sounds as -1: LLAMA_TOKEN_NULL, llama-server's for these."""
    return [max(token, -1) for token in tokens]


def _piece(piece: bytes) -> Any:
    """A token's text, or its bytes where they are no text by themselves."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
