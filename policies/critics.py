"""Pairs of critics whose gradients are written down, not recorded: what an off-policy agent spends nearly all its time on.

A network of this size is bound by memory more than by arithmetic.  All weights of both critics therefore lie in one array, so
that an optimiser, a target average and a rounding to bfloat16 each pass over it once; a gradient of the weights is computed only
for the critics' own step, in place, and the actor's step asks for that of the actions alone.

Axes: H critics (2), B batch, i inputs, o outputs, h width, do and da numbers in an observation and an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from robopref.configs.policy import CIRConfig
from robopref.preference.members import MemberLinear

EPS = 1e-5  # of a LayerNorm, torch's
BLOCK = 2**17  # float32 numbers, 512 kB: the weights, the target's and both roundings together fit a core's own cache
Tape = dict[str, Any]
aten = torch.ops.aten


class Critics(nn.Module):
    """H critics.  A subclass names its layers and the ones to be rounded, and computes values and gradients from them.

    `values` holds all parameters; `weights[name]` and `gradients[name]` are views of it and of its gradient, with a leading
    dimension H.  Whoever changes `values` calls `refresh` before the next forward pass.
    """

    rounded: tuple[str, ...] = ()
    """Layers that bfloat16 applies to."""

    def __init__(
        self,
        layers: Mapping[str, MemberLinear],
        others: Mapping[str, Tensor],
        bf16: bool,
        device: torch.device | str,
        learns: bool = True,
    ) -> None:
        """layers: initial weights; others: further parameters; learns: whether gradients are wanted, a target's are not."""
        super().__init__()
        self.low_type = torch.bfloat16 if bf16 else torch.float32
        initial = {f"{name}.{kind}": getattr(layers[name], kind) for kind in ("weight", "bias") for name in self.rounded}
        rest = {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers.items() for kind in ("weight", "bias")}
        count = sum(value.numel() for value in initial.values())
        initial |= rest | others  # what is rounded comes first, so that it can be rounded in one piece
        flat = torch.cat([value.detach().reshape(-1) for value in initial.values()]).to(device)
        self.values = nn.Parameter(flat, requires_grad=learns)
        shapes = {name: value.shape for name, value in initial.items()}
        low = dict(list(shapes.items())[: 2 * len(self.rounded)])
        self.weights = views(self.values.data, shapes)
        self.gradients: dict[str, Tensor] = {}
        if learns:
            self.values.grad = torch.zeros_like(flat)
            self.gradients = views(self.values.grad, shapes)
        self.low = flat[:count].bfloat16() if bf16 else None
        self.low_weights = self.weights if self.low is None else self.weights | views(self.low, low)
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Q of every critic, (H, B), for obs (B, do) and actions (B, da); differentiable in both, not in the weights."""
        x = torch.cat([obs, actions], -1)
        if torch.is_grad_enabled() and x.requires_grad:
            value: Tensor = OfInputs.apply(x, self)
            return value
        return self.compute(x, None)

    @torch.no_grad()
    def regress(self, obs: Tensor, actions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Q (H, B), and sum_H mean_B (Q - target)^2 for target (B,), whose gradient is then that of `values`."""
        tape: Tape = {}
        q = self.compute(torch.cat([obs, actions], -1), tape)
        error = q - target
        self.backward(error * (2 / error.shape[1]), tape, learn=True)
        return q, error.square().mean(-1).sum()

    def follow(self, other: Critics, share: float) -> None:
        """Go `share` of the way to `other`, block by block, and round both again while a block is in the cache."""
        count = 0 if self.low is None else len(self.low)
        for first in range(0, len(self.values), BLOCK):
            block, low = slice(first, first + BLOCK), slice(first, min(first + BLOCK, count))
            self.values.data[block].lerp_(other.values.data[block], share)
            if self.low is not None and other.low is not None and first < count:
                self.low[low].copy_(self.values.data[low])
                other.low[low].copy_(other.values.data[low])

    def refresh(self) -> None:
        """Round again what is rounded, after `values` has changed."""
        if self.low is not None:
            self.low.copy_(self.values.data[: len(self.low)])

    def compute(self, x: Tensor, tape: Tape | None) -> Tensor:
        """Q (H, B) for x (B, do + da); what the gradient needs goes onto the tape, if there is one."""
        raise NotImplementedError

    def backward(self, gradient: Tensor, tape: Tape, learn: bool) -> Tensor | None:
        """From dL/dQ (H, B): with `learn` into `gradients`, otherwise dL/dx (B, do + da)."""
        raise NotImplementedError

    def dense(self, name: str, x: Tensor) -> Tensor:
        """(H, B, i) -> (H, B, o)."""
        return torch.bmm(x, self.low_weights[f"{name}.weight"]).add_(self.low_weights[f"{name}.bias"])

    def dense_backward(self, name: str, gradient: Tensor, x: Tensor, learn: bool, inputs: bool = True) -> Tensor | None:
        """dL/dx of `dense`, if `inputs` are asked for."""
        weight = f"{name}.weight"
        if learn:
            if gradient.dtype == torch.float32:
                torch.bmm(x.mT, gradient, out=self.gradients[weight])
            else:
                self.gradients[weight].copy_(torch.bmm(x.mT, gradient))
            self.gradients[f"{name}.bias"].copy_(gradient.sum(1, keepdim=True))
        return torch.bmm(gradient, self.low_weights[weight].mT) if inputs else None

    def first_backward(self, gradient: Tensor, tape: Tape, learn: bool) -> Tensor | None:
        """`dense_backward` of the first layer, whose input all critics share."""
        inputs = self.dense_backward("d0", gradient, tape["x"], learn, inputs=not learn)
        return None if inputs is None else inputs.sum(0)


class OfInputs(torch.autograd.Function):
    """Critics as a function of their inputs alone, for the actor that climbs them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, critics: Critics) -> Tensor:
        """Q (H, B) for x (B, do + da)."""
        ctx.critics, ctx.tape = critics, {}
        return critics.compute(x, ctx.tape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        """dL/dx (B, do + da)."""
        return ctx.critics.backward(gradient, ctx.tape, learn=False), None


class ConstrainedCritics(Critics):
    """CIR's critics: seven layers, U-shaped, the first representation constrained (arXiv 2602.11800).

    x0 = ELU(tanh(B(N(W_d0 [s; a])))), x1 = ELU(N(W_d1 x0)), x2 = ELU(N(W_d2 x1)),
    x3 = N(W_m1 ELU(N(W_u1 x2)) + x2), x4 = N(W_m2 ELU(N(W_u2 x3)) + x1), Q = w x4 + b, with B = `rescale`, and N one and the
    same LayerNorm everywhere and in all critics.  First layer and values stay in float32: observations and targets that were
    rounded would move in steps.
    """

    hidden = ("d0", "d1", "d2", "u1", "m1", "u2", "m2")  # the paper's W_d0 to W_m2
    rounded = hidden[1:]

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        obs_dim: int,
        action_dim: int,
        config: CIRConfig,
        device: torch.device | str = "cpu",
        learns: bool = True,
    ) -> None:
        width, self.config = config.width, config
        layers = {"d0": MemberLinear(rngs, obs_dim + action_dim, width)}
        layers |= {name: MemberLinear(rngs, width, width) for name in self.rounded}
        layers["q"] = MemberLinear(rngs, width, 1)
        sites = {"shared": ("all",), "own": self.hidden, "none": ()}[config.norm]
        heads = 1 if config.norm == "shared" else len(rngs)
        norms = {f"{site}.scale": torch.ones(heads, 1, width) for site in sites}
        norms |= {f"{site}.shift": torch.zeros(heads, 1, width) for site in sites}
        super().__init__(layers, norms, config.bf16, device, learns)

    def compute(self, x: Tensor, tape: Tape | None) -> Tensor:
        """See Critics."""
        x = x.expand(len(self.weights["q.bias"]), -1, -1)
        x0 = self.constrain(x, tape)
        x1 = elu_(self.normalise("d1", self.dense("d1", x0), tape))
        x2 = elu_(self.normalise("d2", self.dense("d2", x1), tape))
        x3 = self.up("u1", "m1", x2, x2, tape)
        x4 = self.up("u2", "m2", x3, x1, tape).float()
        if tape is not None:
            tape |= {"x": x, "x0": x0, "x1": x1, "x2": x2, "x3": x3, "x4": x4}
        return self.dense("q", x4).squeeze(-1)

    def constrain(self, x: Tensor, tape: Tape | None) -> Tensor:
        """The first representation (H, B, h): ELU(tanh(B(N(W_d0 x))))."""
        before = self.normalise("d0", self.dense("d0", x), tape)
        scale = rescaling(before, self.config.kappa) if self.config.kappa > 0 else None
        squashed = before if scale is None else before * scale
        if self.config.tanh:
            squashed = squashed.tanh()
        first = F.elu(squashed)
        if tape is not None:
            tape |= {"before": before, "scale": scale, "squashed": squashed, "first": first}
        return first.to(self.low_type)

    def constrain_backward(self, gradient: Tensor, tape: Tape, learn: bool) -> Tensor:
        """dL/d(W_d0 x + b) of `constrain`, float32."""
        g = elu_backward_(gradient.float(), tape["first"])
        if self.config.tanh:
            g = aten.tanh_backward.grad_input(g, tape["squashed"], grad_input=g)
        if self.config.kappa > 0:
            g = rescale_backward_(g, tape["before"], tape["scale"], self.config.kappa)
        return self.normalise_backward("d0", g, tape, learn)

    def up(self, first: str, second: str, x: Tensor, skipped: Tensor, tape: Tape | None) -> Tensor:
        """N(W_second ELU(N(W_first x)) + skipped)."""
        inner = elu_(self.normalise(first, self.dense(first, x), tape))
        if tape is not None:
            tape[f"{first}.out"] = inner
        out = self.dense(second, inner)
        return self.normalise(second, out.add_(skipped) if self.config.skip else out, tape)

    def backward(self, gradient: Tensor, tape: Tape, learn: bool) -> Tensor | None:
        """See Critics."""
        x1, x2 = tape["x1"], tape["x2"]
        if learn:
            for name, value in self.gradients.items():
                if name.endswith(("scale", "shift")):  # these are added up
                    value.zero_()
        gradient = gradient.unsqueeze(-1)
        self.dense_backward("q", gradient, tape["x4"], learn, inputs=False)
        g = torch.mul(gradient.to(self.low_type), self.weights["q.weight"].mT.to(self.low_type))
        g, skipped_to_x1 = self.up_backward("u2", "m2", g, tape["x3"], tape, learn)
        g, skipped_to_x2 = self.up_backward("u1", "m1", g, x2, tape, learn)
        g = elu_backward_(g.add_(skipped_to_x2) if self.config.skip else g, x2)
        g = self.through("d2", g, x1, tape, learn)
        g = elu_backward_(g.add_(skipped_to_x1) if self.config.skip else g, x1)
        g = self.through("d1", g, tape["x0"], tape, learn)
        return self.first_backward(self.constrain_backward(g, tape, learn), tape, learn)

    def up_backward(self, first: str, second: str, gradient: Tensor, x: Tensor, tape: Tape, learn: bool) -> tuple[Tensor, Tensor]:
        """dL/dx and dL/dskipped of `up`."""
        sum_gradient = self.normalise_backward(second, gradient, tape, learn)
        inner = tape[f"{first}.out"]
        g = self.dense_backward(second, sum_gradient, inner, learn)
        assert g is not None
        return self.through(first, elu_backward_(g, inner), x, tape, learn), sum_gradient

    def through(self, name: str, gradient: Tensor, x: Tensor, tape: Tape, learn: bool) -> Tensor:
        """dL/dx of N(W_name x)."""
        out = self.dense_backward(name, self.normalise_backward(name, gradient, tape, learn), x, learn)
        assert out is not None
        return out

    def normalise(self, site: str, x: Tensor, tape: Tape | None) -> Tensor:
        """LayerNorm of x (H, B, h) at the layer `site`; x itself where there is none."""
        if self.config.norm == "none":
            return x
        width = x.shape[-1]
        if self.config.norm == "shared":
            scale, shift = self.weights["all.scale"].view(width), self.weights["all.shift"].view(width)
            y, mean, inverse = torch.native_layer_norm(x, (width,), scale, shift, EPS)
        else:
            y, mean, inverse = torch.native_layer_norm(x, (width,), None, None, EPS)
            y = torch.addcmul(self.weights[f"{site}.shift"], y, self.weights[f"{site}.scale"]).to(x.dtype)
        if tape is not None:
            tape[f"{site}.norm"] = x, mean, inverse
        return y

    def normalise_backward(self, site: str, gradient: Tensor, tape: Tape, learn: bool) -> Tensor:
        """dL/dx of `normalise`."""
        if self.config.norm == "none":
            return gradient
        x, mean, inverse = tape[f"{site}.norm"]
        width, scale = x.shape[-1], None
        if self.config.norm == "shared":
            scale, shift = self.weights["all.scale"].view(width), self.weights["all.shift"].view(width)
            wanted = [True, learn, learn]
            out, *of_norm = aten.native_layer_norm_backward(gradient, x, [width], mean, inverse, scale, shift, wanted)
            if learn:
                for kind, value in zip(("scale", "shift"), of_norm, strict=True):
                    self.gradients[f"all.{kind}"].view(width).add_(value)
            return out
        if learn:
            normal = (x - mean) * inverse
            self.gradients[f"{site}.scale"] += (gradient * normal).sum(1, keepdim=True)
            self.gradients[f"{site}.shift"] += gradient.sum(1, keepdim=True)
        gradient = (gradient * self.weights[f"{site}.scale"]).to(x.dtype)
        return aten.native_layer_norm_backward(gradient, x, [width], mean, inverse, None, None, [True, False, False])[0]


class TwinMLP(Critics):
    """Two plain critics of two ReLU layers, as soft actor-critic has them; the same switches as far as they apply."""

    rounded = ("d1",)

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        obs_dim: int,
        action_dim: int,
        config: CIRConfig,
        device: torch.device | str = "cpu",
        learns: bool = True,
    ) -> None:
        sizes = {"d0": (obs_dim + action_dim, config.width), "d1": (config.width, config.width), "q": (config.width, 1)}
        super().__init__({name: MemberLinear(rngs, *size) for name, size in sizes.items()}, {}, config.bf16, device, learns)

    def compute(self, x: Tensor, tape: Tape | None) -> Tensor:
        """See Critics."""
        x = x.expand(len(self.weights["q.bias"]), -1, -1)
        x0 = self.dense("d0", x).relu_().to(self.low_type)
        x1 = self.dense("d1", x0).relu_().float()
        if tape is not None:
            tape |= {"x": x, "x0": x0, "x1": x1}
        return self.dense("q", x1).squeeze(-1)

    def backward(self, gradient: Tensor, tape: Tape, learn: bool) -> Tensor | None:
        """See Critics."""
        gradient = gradient.unsqueeze(-1)
        self.dense_backward("q", gradient, tape["x1"], learn, inputs=False)
        g = relu_backward_(torch.mul(gradient, self.weights["q.weight"].mT), tape["x1"]).to(self.low_type)
        hidden = self.dense_backward("d1", g, tape["x0"], learn)
        assert hidden is not None
        return self.first_backward(relu_backward_(hidden, tape["x0"]).float(), tape, learn)


def views(flat: Tensor, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Consecutive parts of a vector by name, in the given shapes."""
    parts = flat[: sum(prod(shape) for shape in shapes.values())].split([prod(shape) for shape in shapes.values()])
    return {name: part.view(tuple(shape)) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def rescaling(x: Tensor, kappa: float) -> Tensor:
    """kappa / mean_j |x_j| over the last dimension, kept: what makes the mean absolute value kappa."""
    return kappa / x.abs().mean(-1, keepdim=True).clamp_(min=1e-8)


def rescale_backward_(gradient: Tensor, x: Tensor, scale: Tensor, kappa: float) -> Tensor:
    """dL/dx of x * rescaling(x), in place: s g - s^2 / (kappa h) (g . x) sign(x), with s the scale."""
    slope = torch.linalg.vecdot(gradient, x).unsqueeze(-1) * scale.square() / (kappa * x.shape[-1])
    return gradient.mul_(scale).addcmul_(x.sign(), slope, value=-1)


def elu_(x: Tensor) -> Tensor:
    """ELU in place, as max(x, exp(min(x, 0)) - 1): torch's own takes expm1, several times slower."""
    return torch.maximum(x, torch.clamp_max(x, 0).exp_().sub_(1), out=x)


def elu_backward_(gradient: Tensor, out: Tensor) -> Tensor:
    """dL/dx of ELU from its output, in place."""
    return aten.elu_backward.grad_input(gradient, 1, 1, 1, True, out, grad_input=gradient)


def relu_backward_(gradient: Tensor, out: Tensor) -> Tensor:
    """dL/dx of ReLU from its output, in place."""
    return aten.threshold_backward.grad_input(gradient, out, 0, grad_input=gradient)
