"""Networks of S members trained in one program: one member a seed, every weight with a leading dimension S.

Small networks leave a processor idle between calls; S of them in one batched product cost little more than one.  Members
never touch each other: each has its own generators, so member m of an S-member run is that member trained alone.

Axes: S members, B batch, i inputs, o outputs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from robopref.preference.dropout import in_bytes

BLOCK = 2**18  # float32 numbers in a mebibyte: half of what a core of ours has as its own cache


def member_rngs(seeds: Sequence[int], stream: str) -> list[np.random.Generator]:
    """One generator a member for the purpose `stream`; streams of one seed are independent of each other."""
    return [np.random.default_rng([seed, zlib.crc32(stream.encode())]) for seed in seeds]


def each_once(rngs: Sequence[np.random.Generator], draw: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    """(S, ...): what `draw` makes of every member's generator; members that share one share what it draws.

    Sharing is for members of one seed that differ in something else, such as their reward: they are what they are alone.
    """
    drawn: dict[int, np.ndarray] = {}
    for rng in rngs:
        if id(rng) not in drawn:
            drawn[id(rng)] = draw(rng)
    return np.stack([drawn[id(rng)] for rng in rngs])


class MemberLinear(nn.Module):
    """Weights of S linear layers, initialised as torch.nn.Linear: uniform within 1/sqrt(i).  MemberMLP computes with them."""

    def __init__(self, rngs: Sequence[np.random.Generator], inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        weights = [rng.uniform(-bound, bound, (inputs, outputs)) for rng in rngs]
        biases = [rng.uniform(-bound, bound, (1, outputs)) for rng in rngs]
        self.weight = nn.Parameter(torch.tensor(np.stack(weights), dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(np.stack(biases), dtype=torch.float32))


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
        parameters = list(self.parameters())  # weight, bias, weight, bias, ...
        dropout = self.dropout if rngs is not None else 0.0
        return Layers.apply(x, dropout, rngs, torch.is_grad_enabled(), *parameters)


class Layers(torch.autograd.Function):
    """All layers of a MemberMLP as one operation, computed block by block.

    Layer by layer, a batch of thousands of rows goes through memory a dozen times: products, bias, ReLU, mask, and back.  In a
    block that fits the processor's cache all of that but the products is almost free.  What the backward pass needs of a
    hidden layer is its output alone: it is 0 where the unit was off or dropped, and elsewhere the slope is the mask's scale.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropout: float,
        rngs: Sequence[np.random.Generator],
        differentiate: bool,
        *parameters: Tensor,
    ) -> Tensor:
        """(S, B, i) -> (S, B, o); parameters: weight (S, i, o) and bias (S, 1, o) of every layer."""
        weights, biases = parameters[::2], parameters[1::2]
        (members, batch), widths = x.shape[:2], [weight.shape[-1] for weight in weights[:-1]]
        threshold, scale = in_bytes(dropout)
        out, saved = x.new_empty(members, batch, weights[-1].shape[-1]), []
        for some, row_blocks in blocks(members, batch, max(widths, default=1), x.device):
            kept = [draw_kept(rngs[some], (batch, width), threshold, x.device) for width in widths] if dropout > 0 else None
            for rows in row_blocks:
                inputs = [x[some, rows]]
                for layer in range(len(widths)):
                    h = torch.baddbmm(biases[layer][some], inputs[-1], weights[layer][some]).relu_()
                    if kept is not None:
                        h.mul_(kept[layer][:, rows].to(h.dtype)).mul_(scale)
                    inputs.append(h)
                out[some, rows] = torch.baddbmm(biases[-1][some], inputs[-1], weights[-1][some])
                if differentiate:
                    saved.append((some, rows, inputs))
        ctx.blocks, ctx.scale = saved, scale
        ctx.save_for_backward(*parameters)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the parameters, and of x where it is asked for."""
        weights, biases = ctx.saved_tensors[::2], ctx.saved_tensors[1::2]
        weight_grads, bias_grads = [torch.empty_like(w) for w in weights], [torch.zeros_like(b) for b in biases]
        x_grad = grad.new_empty(*grad.shape[:2], weights[0].shape[1]) if ctx.needs_input_grad[0] else None
        for some, rows, inputs in ctx.blocks:
            g = grad[some, rows]
            for layer in range(len(weights) - 1, -1, -1):
                weight_grads[layer][some].baddbmm_(inputs[layer].mT, g, beta=int(rows.start > 0))
                bias_grads[layer][some] += g.sum(1, keepdim=True)
                if layer > 0:
                    g = torch.bmm(g, weights[layer][some].mT)
                    torch.ops.aten.threshold_backward.grad_input(g, inputs[layer], 0, grad_input=g)  # in place
                    if ctx.scale != 1:
                        g.mul_(ctx.scale)
                elif x_grad is not None:
                    x_grad[some, rows] = torch.bmm(g, weights[0][some].mT)
        ctx.blocks = None  # a second backward would need the activations; this frees them now
        grads = (grad for pair in zip(weight_grads, bias_grads, strict=True) for grad in pair)
        return x_grad, None, None, None, *grads


def blocks(members: int, batch: int, width: int, device: torch.device) -> Iterator[tuple[slice, list[slice]]]:
    """Which members, and which rows of them, are computed at a time: hidden layers of at most BLOCK numbers.

    A GPU computes everything at once; it has no cache to stay in, and a block would not fill it.
    """
    rows = batch if device.type != "cpu" else min(batch, max(1, BLOCK // width))
    some = members if device.type != "cpu" else max(1, BLOCK // (batch * width))
    for first in range(0, members, some):
        yield slice(first, min(first + some, members)), [slice(row, row + rows) for row in range(0, batch, rows)]


def draw_kept(rngs: Sequence[np.random.Generator], shape: tuple[int, int], threshold: int, device: torch.device) -> Tensor:
    """Which units stay: (S, *shape) uint8 of 0 and 1, each member's from its own generator, a random byte a unit."""
    if device.type != "cpu":
        return draw_kept_there(rngs, shape, threshold, device)
    kept = np.empty((len(rngs), shape[0] * shape[1]), np.bool_)
    for row, rng in zip(kept, rngs, strict=True):
        for first in range(0, len(row), BLOCK):  # the bytes of one large draw, without its large and always new memory
            part = row[first : first + BLOCK]
            np.greater_equal(np.frombuffer(rng.bytes(len(part)), np.uint8), threshold, out=part)
    return torch.from_numpy(kept.view(np.uint8).reshape(-1, *shape))


def draw_kept_there(rngs: Sequence[np.random.Generator], shape: tuple[int, int], threshold: int, device: torch.device) -> Tensor:
    """`draw_kept` on a GPU: bytes that a processor draws and sends over would take longer than the whole step.

    A member's generator gives the seed of the GPU's, so what it draws is still the member's own; the masks are others than a
    processor's.
    """
    kept, there = torch.empty((len(rngs), *shape), dtype=torch.uint8, device=device), torch.Generator(device)
    for row, rng in zip(kept, rngs, strict=True):
        row.random_(0, 256, generator=there.manual_seed(int(rng.integers(2**63))))
    return (kept >= threshold).view(torch.uint8)


def adam(module: nn.Module, learning_rate: float, capturable: bool = False) -> torch.optim.Adam:
    """Adam on stacked weights; it works element by element, so the members stay as independent as with S optimisers.

    capturable: its steps may be part of a CUDA graph.
    """
    return torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True, capturable=capturable)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step on `loss` (S,): the sum over members, so that each member's gradient is its own loss's."""
    optimizer.zero_grad(set_to_none=True)
    loss.sum().backward()
    optimizer.step()
