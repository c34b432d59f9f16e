"""The network: a small llama, written so that its weights go into a GGUF as they are.

Shapes: `B` sequences, `T` tokens, `E` n_embd, `H` query heads, `K` key/value heads, `D` head size, `V` vocabulary.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The hyperparameters, by llama.cpp's names; every matrix row is a multiple of 256 wide, as K-quants require."""

    n_vocab: int = 4096
    n_ctx_train: int = 1024
    n_embd: int = 256
    n_layer: int = 6
    n_head: int = 4
    n_head_kv: int = 2
    n_ff: int = 768
    rope_freq_base: float = 10_000.0
    rms_epsilon: float = 1e-5

    @property
    def n_embd_head(self) -> int:
        """Width of one head, `D`."""
        return self.n_embd // self.n_head


class Attention(nn.Module):  # type: ignore[misc]
    """Causal attention with rotary positions and fewer key/value heads than query heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_embd_head = shape.n_embd_head
        n_embd_kv = shape.n_head_kv * shape.n_embd_head
        self.q = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.k = nn.Linear(shape.n_embd, n_embd_kv, bias=False)
        self.v = nn.Linear(shape.n_embd, n_embd_kv, bias=False)
        self.output = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map `(B, T, E)` to `(B, T, E)`; `cos` and `sin` are `(T, D / 2)`."""
        heads = (*x.shape[:2], -1, self.n_embd_head)
        q = rotate(self.q(x).view(heads), cos, sin).transpose(1, 2)  # (B, H, T, D)
        k = rotate(self.k(x).view(heads), cos, sin).transpose(1, 2)  # (B, K, T, D)
        v = self.v(x).view(heads).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.output(mixed.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):  # type: ignore[misc]
    """SwiGLU: `down(silu(gate(x)) · up(x))`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, T, E)` to `(B, T, E)`."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):  # type: ignore[misc]
    """One layer: normalise, attend, add; normalise, feed forward, add."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(shape.n_embd, eps=shape.rms_epsilon)
        self.attn = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.n_embd, eps=shape.rms_epsilon)
        self.ffn = FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map `(B, T, E)` to `(B, T, E)`; `cos` and `sin` are `(T, D / 2)`."""
        x = x + self.attn(self.attn_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class Llama(nn.Module):  # type: ignore[misc]
    """The whole model; the embedding matrix also makes the logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.output_norm = nn.RMSNorm(shape.n_embd, eps=shape.rms_epsilon)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # What is added to the residual stream starts smaller, so that its variance does not grow with depth.
                added = name.endswith(("attn.output.weight", "ffn.down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * shape.n_layer) if added else 0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats of `targets` `(B, T)` after `tokens` `(B, T)`."""
        cos, sin = rotations(self.shape, tokens.shape[1], tokens.device)
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cos, sin)
        logits = F.linear(self.output_norm(x), self.token_embd.weight)  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def rotations(shape: Shape, n_tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine of each position's angles, `(T, D / 2)` each."""
    half = torch.arange(0, shape.n_embd_head, 2, device=device) / shape.n_embd_head
    angles = torch.outer(torch.arange(n_tokens, device=device), shape.rope_freq_base**-half)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of neighbours of `(B, T, heads, D)` by its position's angle.

    Neighbours, not halves: this is the order that llama.cpp expects of a llama, so that export permutes nothing.

    Source: llama.cpp 0c1e570 src/llama-model.cpp, llama_model_rope_type (LLAMA_ROPE_TYPE_NORM).
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).type_as(x)
