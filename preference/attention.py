"""Attention blocks of VLP, for many short sequences: a Meta-World clip has 8 tokens, a sentence about ten.

Inputs are normalised first (Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020).  Dropout is on
what attention and feed-forward part add, not inside them, where most of its masks would be drawn [ours].

Axes: N clips or sentences, B pairs of the two, X and Y tokens, C width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopref.preference.dropout import ByteDropout


class SelfAttention(nn.Module):
    """The tokens of a sequence look at each other, then pass a feed-forward layer."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop = ByteDropout(dropout)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """x (N, X, C), real (N, X) False = padding that nobody looks at -> (N, X, C)."""
        query, key, value = self.query_key_value(self.norm_in(x)).chunk(3, dim=2)
        x = x + self.drop(self.out(attend(query, key, value, real, self.heads)))
        return x + self.drop(self.feed(self.norm_out(x)))


class CrossAttentionMean(nn.Module):
    """The tokens of one sequence look at those of another; the mean over them is what is used.

    A sequence that is in several pairs is projected once, and the last product is taken of the mean, which is the mean of
    the products.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_x, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.drop = ByteDropout(dropout)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        pairs: tuple[Tensor, Tensor],
        real_x: Tensor | None = None,
        real_context: Tensor | None = None,
    ) -> Tensor:
        """x (N, X, C), context (M, Y, C), real_x (N, X) and real_context (M, Y) False = padding -> means (B, C).

        pairs: for each of B results the row of x and the row of context, (B,) each.
        """
        rows, others = pairs
        query = self.query(self.norm_x(x)).index_select(0, rows)
        key, value = self.key_value(self.norm_context(context)).index_select(0, others).chunk(2, dim=2)
        seen = attend(query, key, value, None if real_context is None else real_context[others], self.heads)
        seen = token_mean(seen, None if real_x is None else real_x[rows])
        return token_mean(x, real_x).index_select(0, rows) + self.drop(self.out(seen))

    def shares(
        self,
        x: Tensor,
        context: Tensor,
        pairs: tuple[Tensor, Tensor],
        real_x: Tensor | None = None,
        real_context: Tensor | None = None,
    ) -> Tensor:
        """The share of attention that each token of the context gets, mean over heads and tokens of x: (B, Y), rows sum to 1.

        Arguments as in `forward`, whose fused product keeps no weights; for looking at a model only.
        """
        rows, others = pairs
        query = self.query(self.norm_x(x)).index_select(0, rows)
        key, _ = self.key_value(self.norm_context(context)).index_select(0, others).chunk(2, dim=2)
        query, key = (tokens.unflatten(2, (self.heads, -1)).transpose(1, 2) for tokens in (query, key))
        logits = query @ key.transpose(2, 3) / query.shape[3] ** 0.5  # (B, H, X, Y)
        if real_context is not None:
            logits = logits.masked_fill(~real_context[others][:, None, None, :], -torch.inf)
        return token_mean(logits.softmax(3).mean(1), None if real_x is None else real_x[rows])


def attend(query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, heads: int) -> Tensor:
    """query (B, X, C), key and value (B, Y, C), real (B, Y) False = not to be looked at -> (B, X, C)."""
    query, key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    mask = None if real is None else real[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)


def token_mean(x: Tensor, real: Tensor | None) -> Tensor:
    """Mean over the tokens of x (B, X, C), of those that are `real` (B, X) -> (B, C)."""
    if real is None:
        return x.mean(1)
    return (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)
