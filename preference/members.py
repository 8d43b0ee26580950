"""Networks of S members trained in one program: one member a seed, every weight with a leading dimension S.

Small networks leave a processor idle between calls; S of them in one batched product cost little more than one.  Members
never touch each other: each has its own generators, so member m of an S-member run is that member trained alone.

Axes: S members, B batch, i inputs, o outputs.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.preference.dropout import byte_mask


def member_rngs(seeds: Sequence[int], stream: str) -> list[np.random.Generator]:
    """One generator a member for the purpose `stream`; streams of one seed are independent of each other."""
    return [np.random.default_rng([seed, zlib.crc32(stream.encode())]) for seed in seeds]


class MemberLinear(nn.Module):
    """S linear layers, (S, B, i) -> (S, B, o), initialised as torch.nn.Linear: uniform within 1/sqrt(i)."""

    def __init__(self, rngs: Sequence[np.random.Generator], inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        weights = [rng.uniform(-bound, bound, (inputs, outputs)) for rng in rngs]
        biases = [rng.uniform(-bound, bound, (1, outputs)) for rng in rngs]
        self.weight = nn.Parameter(torch.tensor(np.stack(weights), dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(np.stack(biases), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(S, B, i) -> (S, B, o)."""
        return torch.baddbmm(self.bias, x, self.weight)


class MemberMLP(nn.Module):
    """S multi-layer perceptrons with ReLU, and dropout after each hidden layer when the caller passes generators.

    sizes: inputs, hidden widths, outputs.
    """

    def __init__(self, rngs: Sequence[np.random.Generator], sizes: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemberLinear(rngs, i, o) for i, o in pairwise(sizes))
        self.dropout = dropout

    def forward(self, x: Tensor, rngs: Sequence[np.random.Generator] | None = None) -> Tensor:
        """(S, B, i) -> (S, B, o).  rngs: S generators to draw the dropout masks from; None means evaluation."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x), inplace=True)
            if rngs is not None and self.dropout > 0:
                x = x * dropout_mask(x, self.dropout, rngs)
        return self.layers[-1](x)


def dropout_mask(x: Tensor, rate: float, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Mask of 0 and 1/(1 - rate) for x (S, B, w), each member's from its own generator; the rate in steps of 1/256."""
    shape = x.shape[1:]
    drawn = np.stack([np.frombuffer(rng.bytes(shape.numel()), np.uint8).reshape(shape) for rng in rngs])
    return byte_mask(torch.from_numpy(drawn), rate, x)


def adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Adam on stacked weights; it works element by element, so the members stay as independent as with S optimisers."""
    return torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step on `loss` (S,): the sum over members, so that each member's gradient is its own loss's."""
    optimizer.zero_grad(set_to_none=True)
    loss.sum().backward()
    optimizer.step()
