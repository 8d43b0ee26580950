"""Pairs of critics: what an off-policy agent spends nearly all its time on.

Axes: H critics (2), B batch, h width, do and da numbers in an observation and an action.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robopref.configs.policy import CIRConfig
from robopref.policies.flat import FlatNetworks, Tape, aten, relu_backward_
from robopref.preference.members import MemberLinear

EPS = 1e-5  # of a LayerNorm, torch's


class Critics(FlatNetworks):
    """H critics.  A subclass computes values and gradients."""

    action_dim: int

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Q of every critic, (H, B), for obs (B, do) and actions (B, da)."""
        return self.compute(self.join(obs, actions), None)

    @torch.no_grad()
    def regress(self, obs: Tensor, actions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Q (H, B), and sum_H mean_B (Q - target)^2 for target (B,), whose gradient is then that of `values`."""
        tape: Tape = {}
        q = self.compute(self.join(obs, actions), tape)
        error = q - target
        self.backward(error * (2 / error.shape[1]), tape, learn=True)
        return q, error.square().mean(-1).sum()

    @torch.no_grad()
    def climb(self, obs: Tensor, actions: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """What an actor climbs, (B,): the critics' mean or their minimum (`kind`), and its gradient in the actions (B, da)."""
        tape: Tape = {}
        q = self.compute(self.join(obs, actions), tape)
        if kind == "mean":
            value, share = q.mean(0), torch.full_like(q, 1 / len(q))
        else:
            value, lowest = q.min(0)
            share = torch.zeros_like(q).scatter_(0, lowest[None], 1.0)
        slope = self.backward(share, tape, learn=False)
        assert slope is not None
        return value, slope

    def join(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The critics' common input, (H, B, do + da)."""
        return torch.cat([obs, actions], -1).expand(len(self.weights["q.bias"]), -1, -1)

    def compute(self, x: Tensor, tape: Tape | None) -> Tensor:
        """Q (H, B) for x (H, B, do + da); what the gradient needs goes onto the tape, if there is one."""
        raise NotImplementedError

    def backward(self, gradient: Tensor, tape: Tape, learn: bool) -> Tensor | None:
        """From dL/dQ (H, B): with `learn` into `gradients`, otherwise dL/da (B, da), summed over the critics."""
        raise NotImplementedError

    def first_backward(self, gradient: Tensor, tape: Tape, learn: bool) -> Tensor | None:
        """The first layer's part of `backward`; all critics share its input, of which nobody asks for the observations' slope."""
        if learn:
            return self.dense_backward("d0", gradient, tape["x"], learn, inputs=False)
        of_actions = self.used["d0.weight"][:, -self.action_dim :]
        return self.product("d0", gradient, of_actions.mT).sum(0)


class ConstrainedCritics(Critics):
    """CIR's critics: seven layers, U-shaped, the first representation constrained (arXiv 2602.11800).

    x0 = ELU(tanh(B(N(W_d0 [s; a])))), x1 = ELU(N(W_d1 x0)), x2 = ELU(N(W_d2 x1)),
    x3 = N(W_m1 ELU(N(W_u1 x2)) + x2), x4 = N(W_m2 ELU(N(W_u2 x3)) + x1), Q = w x4 + b, with B(x) = x `rescaling`(x), and N one
    and the same LayerNorm everywhere and in all critics.  First layer and values stay in float32: observations and targets that
    were rounded would move in steps.
    """

    hidden = ("d0", "d1", "d2", "u1", "m1", "u2", "m2")  # the paper's W_d0 to W_m2

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
        layers |= {name: MemberLinear(rngs, width, width) for name in self.hidden[1:]}
        layers["q"] = MemberLinear(rngs, width, 1)
        sites = {"shared": ("all",), "own": self.hidden, "none": ()}[config.norm]
        heads = 1 if config.norm == "shared" else len(rngs)
        norms = {f"{site}.scale": torch.ones(heads, 1, width) for site in sites}
        norms |= {f"{site}.shift": torch.zeros(heads, 1, width) for site in sites}
        super().__init__(layers, config.precision, self.hidden[1:], norms, device, learns)
        self.action_dim = action_dim

    def compute(self, x: Tensor, tape: Tape | None) -> Tensor:
        """See Critics."""
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
        first = elu(squashed)
        if tape is not None:
            tape |= {"before": before, "scale": scale, "squashed": squashed, "first": first}
        return first.to(self.type_of("d1"))

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
        low = self.type_of("m2")
        g = torch.mul(gradient.to(low), self.weights["q.weight"].mT.to(low))
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
            scale, shift = self.shared_norm(x)
            y, mean, inverse = torch.native_layer_norm(x, (width,), scale, shift, EPS)
        else:
            y, mean, inverse = torch.native_layer_norm(x, (width,), None, None, EPS)
            y = torch.addcmul(self.weights[f"{site}.shift"], y, self.weights[f"{site}.scale"]).to(x.dtype)
        if tape is not None:
            tape[f"{site}.norm"] = x, mean, inverse
        return y

    def shared_norm(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift (h,) of the one LayerNorm, for x; a GPU's kernel wants them in the type of x."""
        found = (self.weights[f"all.{kind}"].view(-1) for kind in ("scale", "shift"))
        scale, shift = (value.to(x.dtype) if x.is_cuda else value for value in found)
        return scale, shift

    def normalise_backward(self, site: str, gradient: Tensor, tape: Tape, learn: bool) -> Tensor:
        """dL/dx of `normalise`."""
        if self.config.norm == "none":
            return gradient
        x, mean, inverse = tape[f"{site}.norm"]
        width = x.shape[-1]
        if self.config.norm == "shared":
            scale, shift = self.shared_norm(x)
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
        layers = {name: MemberLinear(rngs, *size) for name, size in sizes.items()}
        super().__init__(layers, config.precision, ("d1",), None, device, learns)
        self.action_dim = action_dim

    def compute(self, x: Tensor, tape: Tape | None) -> Tensor:
        """See Critics."""
        x0 = self.dense("d0", x).relu_().to(self.type_of("d1"))
        x1 = self.dense("d1", x0).relu_().float()
        if tape is not None:
            tape |= {"x": x, "x0": x0, "x1": x1}
        return self.dense("q", x1).squeeze(-1)

    def backward(self, gradient: Tensor, tape: Tape, learn: bool) -> Tensor | None:
        """See Critics."""
        gradient = gradient.unsqueeze(-1)
        self.dense_backward("q", gradient, tape["x1"], learn, inputs=False)
        g = relu_backward_(torch.mul(gradient, self.weights["q.weight"].mT), tape["x1"]).to(self.type_of("d1"))
        hidden = self.dense_backward("d1", g, tape["x0"], learn)
        assert hidden is not None
        return self.first_backward(relu_backward_(hidden, tape["x0"]).float(), tape, learn)


def rescaling(x: Tensor, kappa: float) -> Tensor:
    """kappa / mean_j |x_j| over the last dimension, kept: what makes the mean absolute value kappa."""
    return kappa / x.abs().mean(-1, keepdim=True).clamp_(min=1e-8)


def rescale_backward_(gradient: Tensor, x: Tensor, scale: Tensor, kappa: float) -> Tensor:
    """dL/dx of x * rescaling(x), in place: s g - s^2 / (kappa h) (g . x) sign(x), with s the scale."""
    slope = torch.linalg.vecdot(gradient, x).unsqueeze(-1) * scale.square() / (kappa * x.shape[-1])
    return gradient.mul_(scale).addcmul_(x.sign(), slope, value=-1)


def elu(x: Tensor, out: Tensor | None = None) -> Tensor:
    """max(x, exp(min(x, 0)) - 1), into `out`, which may be x: torch's own takes expm1, several times slower."""
    return torch.maximum(x, torch.clamp_max(x, 0).exp_().sub_(1), out=out)


def elu_(x: Tensor) -> Tensor:
    """ELU in place."""
    return elu(x, out=x)


def elu_backward_(gradient: Tensor, out: Tensor) -> Tensor:
    """dL/dx of ELU from its output, in place."""
    return aten.elu_backward.grad_input(gradient, 1, 1, 1, True, out, grad_input=gradient)
