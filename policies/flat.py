"""Networks whose parameters lie in one array and whose gradients are written down, not recorded.

An update of small networks is bound by memory and by calls more than by arithmetic.  In one array an optimiser, a target average
and a rounding to bfloat16 are one pass each; a gradient written down is computed in place, and only where it is wanted.

Axes: H networks of the same shape, B batch, i inputs, o outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from robopref.preference.members import MemberLinear

BLOCK = 2**17  # float32 numbers, 512 kB: the weights, the target's and both roundings together fit a core's own cache
Tape = dict[str, Any]
"""What a forward pass leaves for its gradient."""
aten = torch.ops.aten


class FlatNetworks(nn.Module):
    """H networks.  `values` holds all parameters; `weights[name]` and `gradients[name]` are views of it and of its gradient.

    A layer NAME has NAME.weight (H, i, o) and NAME.bias (H, 1, o).  Whoever changes `values` calls `refresh` before the next
    forward pass.
    """

    def __init__(
        self,
        layers: Mapping[str, MemberLinear],
        precision: str = "float32",
        hidden: Sequence[str] = (),
        others: Mapping[str, Tensor] | None = None,
        device: torch.device | str = "cpu",
        learns: bool = True,
    ) -> None:
        """layers: initial weights; precision: of the layers `hidden`, see CIRConfig; others: further parameters; learns:
        whether gradients are wanted.
        """
        super().__init__()
        kinds = ("weight", "bias")
        rounded = tuple(hidden) if precision == "bfloat16" else ()
        self.mixed = frozenset(hidden if precision == "mixed" else ())
        initial = {f"{name}.{kind}": getattr(layers[name], kind) for kind in kinds for name in rounded}
        count = sum(value.numel() for value in initial.values())  # first in the array, so that they are rounded in one piece
        initial |= {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers.items() for kind in kinds}
        initial |= others or {}
        flat = torch.cat([value.detach().reshape(-1) for value in initial.values()]).to(device)
        self.values = nn.Parameter(flat, requires_grad=learns)
        shapes = {name: value.shape for name, value in initial.items()}
        self.weights = views(self.values.data, shapes)
        self.gradients: dict[str, Tensor] = {}
        if learns:
            self.values.grad = torch.zeros_like(flat)
            self.gradients = views(self.values.grad, shapes)
        self.low = flat[:count].bfloat16()
        self.used = self.weights | views(self.low, dict(list(shapes.items())[: 2 * len(rounded)]))
        """`weights` as a forward pass takes them: rounded where they are to be."""
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    def type_of(self, name: str) -> torch.dtype:
        """What a layer is computed in."""
        return self.used[f"{name}.weight"].dtype

    def refresh(self) -> None:
        """Round again what is rounded, after `values` has changed."""
        self.low.copy_(self.values.data[: len(self.low)])

    def follow(self, other: FlatNetworks, share: float) -> None:
        """Go `share` of the way to `other`, block by block, and refresh both while a block is in a processor's cache."""
        size = len(self.values) if self.values.is_cuda else BLOCK
        for first in range(0, len(self.values), size):
            block = slice(first, first + size)
            self.values.data[block].lerp_(other.values.data[block], share)
            if first < len(self.low):
                block = slice(first, min(first + size, len(self.low)))
                self.low[block].copy_(self.values.data[block])
                other.low[block].copy_(other.values.data[block])

    def dense(self, name: str, x: Tensor) -> Tensor:
        """(H, B, i) -> (H, B, o); x of the type that the layer is computed in."""
        return self.product(name, x, self.used[f"{name}.weight"]).add_(self.used[f"{name}.bias"])

    def dense_backward(self, name: str, gradient: Tensor, x: Tensor, learn: bool, inputs: bool = True) -> Tensor | None:
        """With `learn`, the layer's gradients; with `inputs`, dL/dx (H, B, i) is returned.  x as `dense` had it."""
        key = f"{name}.weight"
        if learn and x.dtype == torch.float32:
            self.product(name, x.mT, gradient, out=self.gradients[key])
            torch.sum(gradient, 1, keepdim=True, out=self.gradients[f"{name}.bias"])
        elif learn:
            self.gradients[key].copy_(torch.bmm(x.mT, gradient))
            self.gradients[f"{name}.bias"].copy_(gradient.sum(1, keepdim=True))
        return self.product(name, gradient, self.used[key].mT) if inputs else None

    def product(self, name: str, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
        """a b for the layer `name`, in its precision: torch knows it only as a setting of the whole process."""
        if b.shape[-1] == 1 and not b.is_cuda:
            return one_column(a, b, out)
        if name not in self.mixed:
            return torch.bmm(a, b, out=out)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            return torch.bmm(a, b, out=out)
        finally:
            torch.set_float32_matmul_precision(before)


def views(flat: Tensor, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Consecutive parts of a vector by name, in the given shapes."""
    parts = flat[: sum(prod(shape) for shape in shapes.values())].split([prod(shape) for shape in shapes.values()])
    return {name: part.view(tuple(shape)) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def one_column(a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
    """a b for b (H, i, 1), one call for each of H: on a processor that takes a tenth of the time of torch.bmm."""
    if out is None:
        out = a.new_empty(*a.shape[:-1], 1)
    for row, column, product in zip(a, b, out, strict=True):
        torch.mm(row, column, out=product)
    return out


def relu_backward_(gradient: Tensor, out: Tensor) -> Tensor:
    """dL/dx of ReLU from its output, in place."""
    return aten.threshold_backward.grad_input(gradient, out, 0, grad_input=gradient)
