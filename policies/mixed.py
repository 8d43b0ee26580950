"""Networks of S members whose hidden layers multiply bfloat16 numbers, with gradients written down: IQL's faster update.

With two layers of 256 and batches of 256, four fifths of an update are matrix products, and several seeds in one program make
those no fewer.  Products of bfloat16 numbers, added in float32 inside and rounded when they come out, take half of the time or
less where a processor has instructions for them.  First layers are left out, since an observation in bfloat16 has three digits,
and last layers, whose outputs are values and actions.  Weights, sums, ReLU and the optimiser see float32.  What is left is memory
and calls: arrays are kept from step to step, all parameters of a network lie in one, and nothing is recorded for autograd.

Axes: S members, B batch, i inputs, o outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from robopref.configs.errors import UsageError, nearest
from robopref.policies.flat import relu_backward_, views
from robopref.preference.dropout import in_bytes
from robopref.preference.members import MemberMLP, draw_kept

PRECISIONS = ("float32", "mixed", "auto")


def is_mixed(precision: str, device: torch.device) -> bool:
    """What `precision` means on a device; auto: mixed where bfloat16 numbers are multiplied by instructions of their own."""
    if precision not in PRECISIONS:
        raise UsageError(f"policy.precision={precision}: one of {', '.join(PRECISIONS)}.{nearest(precision, PRECISIONS)}")
    return precision == "mixed" or (precision == "auto" and has_bfloat16(device))


def has_bfloat16(device: torch.device) -> bool:
    """Whether such products are faster than float32's; of processors torch says so of those with AVX-512 alone."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


class OneArray:
    """All parameters of a module, moved into one array, of which they become views; its gradient is another."""

    def __init__(self, module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        self.values = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters.values()]))
        self.values.grad = torch.zeros_like(self.values)
        shapes = {name: parameter.shape for name, parameter in parameters.items()}
        for name, view in views(self.values.data, shapes).items():
            parameters[name].data = view
        self.gradients = views(self.values.grad, shapes)
        """By the parameters' names."""


def adam_step(optimizer: torch.optim.Adam) -> None:
    """`optimizer.step()` of a fused Adam over one array: the kernel alone, since what is around it takes as long again."""
    (group,) = optimizer.param_groups
    (values,) = group["params"]
    state = optimizer.state[values]
    if not state:
        optimizer.step()  # which makes the moments
        return
    state["step"].add_(1)
    torch._fused_adam_(
        [values],
        [values.grad],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


class Pass:
    """Forward and backward pass of a MemberMLP, in arrays that are kept: what a call returns holds until the next one."""

    def __init__(self, mlp: MemberMLP, gradients: Mapping[str, Tensor], mixed: bool = True) -> None:
        """gradients: where they go, by the names of the mlp's parameters; mixed: False for float32 throughout."""
        self.weights = [parameter.data for name, parameter in mlp.named_parameters() if name.endswith("weight")]
        self.biases = [parameter.data for name, parameter in mlp.named_parameters() if name.endswith("bias")]
        self.of_weights = [gradient for name, gradient in gradients.items() if name.endswith("weight")]
        self.of_biases = [gradient for name, gradient in gradients.items() if name.endswith("bias")]
        self.mixed, self.dropout, self.scale = mixed, mlp.dropout, 1.0
        self.rounded = [weight.bfloat16() for weight in self.weights[1:-1]]
        self.rounded_gradients = [torch.empty_like(weight) for weight in self.rounded]
        self.arrays: dict[int, Arrays] = {}

    def __call__(self, x: Tensor, rngs: Sequence[np.random.Generator] | None = None) -> Tensor:
        """(S, B, i) -> (S, B, o).  rngs: S generators to draw the dropout masks from, as in MemberMLP; None: evaluation."""
        rows = x.shape[1]
        if rows not in self.arrays:
            self.arrays[rows] = Arrays(self.weights, rows)
        arrays = self.arrays[rows]
        threshold, self.scale = in_bytes(self.dropout if rngs is not None else 0.0)
        arrays.x, h = x, x
        for number, out in enumerate(arrays.hidden):
            if number > 0 and self.mixed:
                low, product = arrays.low[number - 1].copy_(h), arrays.products[number - 1]
                torch.bmm(low, self.rounded[number - 1].copy_(self.weights[number]), out=product)
                out.copy_(product).add_(self.biases[number])
            else:
                torch.baddbmm(self.biases[number], h, self.weights[number], out=out)
            h = out.relu_()
            if rngs is not None and threshold > 0:
                h.mul_(draw_kept(rngs, (rows, h.shape[-1]), threshold, h.device)).mul_(self.scale)
        # Products with few columns are slow: transposed they take a quarter, with one column a call for each a tenth of the time.
        if arrays.out.shape[-1] == 1 and not x.is_cuda:
            for member, row in enumerate(h):
                torch.mm(row, self.weights[-1][member], out=arrays.out[member])
        else:
            torch.bmm(self.weights[-1].mT, h.mT, out=arrays.out.mT)
        return arrays.out.add_(self.biases[-1])

    def backward(self, gradient: Tensor) -> None:
        """Write the parameters' gradients from dL/dout (S, B, o) of the last call with so many rows."""
        arrays = self.arrays[gradient.shape[1]]
        torch.sum(gradient, 1, keepdim=True, out=self.of_biases[-1])
        self.of_weights[-1].copy_(torch.bmm(gradient.mT, arrays.hidden[-1]).mT)
        g = arrays.gradients[-1]
        if gradient.shape[-1] == 1:
            torch.mul(gradient, self.weights[-1].mT, out=g)
        else:
            torch.bmm(gradient, self.weights[-1].mT, out=g)
        for number in range(len(arrays.hidden) - 1, -1, -1):
            relu_backward_(g, arrays.hidden[number])  # 0 where a unit was off or dropped
            if self.scale != 1:
                g.mul_(self.scale)
            torch.sum(g, 1, keepdim=True, out=self.of_biases[number])
            if number == 0:
                torch.bmm(arrays.x.mT, g, out=self.of_weights[0])
                return
            below = arrays.gradients[number - 1]
            if self.mixed:
                low, inputs = arrays.products[number - 1].copy_(g), arrays.low[number - 1]
                torch.bmm(inputs.mT, low, out=self.rounded_gradients[number - 1])
                self.of_weights[number].copy_(self.rounded_gradients[number - 1])
                below.copy_(torch.bmm(low, self.rounded[number - 1].mT, out=inputs))  # which nobody needs any more
            else:
                torch.bmm(arrays.hidden[number - 1].mT, g, out=self.of_weights[number])
                torch.bmm(g, self.weights[number].mT, out=below)
            g = below


class Arrays:
    """What a pass over so many rows leaves for its gradient, and works in."""

    def __init__(self, weights: Sequence[Tensor], rows: int) -> None:
        members, inputs, _ = weights[0].shape
        shapes = [(members, rows, weight.shape[-1]) for weight in weights]
        first = weights[0]
        self.x = first.new_empty(members, rows, inputs)
        self.hidden = [first.new_empty(shape) for shape in shapes[:-1]]
        self.gradients = [first.new_empty(shape) for shape in shapes[:-1]]
        self.low = [first.new_empty(shape, dtype=torch.bfloat16) for shape, _ in pairwise(shapes[:-1])]
        """Of every hidden layer but the last its output, rounded; after `backward` something else."""
        self.products = [first.new_empty(shape, dtype=torch.bfloat16) for _, shape in pairwise(shapes[:-1])]
        """What comes out of a rounded product; then its gradient, rounded."""
        self.out = first.new_empty(members, weights[-1].shape[-1], rows).mT
