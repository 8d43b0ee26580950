"""Actors and critics of S members, and the numpy policy that acts with one of them.

Training networks see normalised observations (replay.py); the saved policy folds the normalisation into its first layer and
takes raw ones.  The model folder it is loaded from is what `robopref train` leaves.

Axes: S members, B batch, N acting batch, do and da numbers in an observation and an action.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopref.configs.checkpoint import check_sizes, load_model, load_strict, save_model
from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.files import as_written
from robopref.policies.replay import Normaliser
from robopref.preference.members import MemberLinear, MemberMLP, member_rngs

ACTORS = ("deterministic", "gaussian")
LOG_STD_RANGE = (-5.0, 2.0)  # IQL's bounds


class Actor(nn.Module):
    """S policies pi(a | s) with means in (-1, 1).

    kind "deterministic" (CPL repository, Meta-World): log pi(a|s) is taken as -||pi(s) - a||^2.  "gaussian" (IQL): a
    standard deviation a dimension that does not depend on the state.
    """

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        kind: str = "deterministic",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in ACTORS:
            raise RoboprefError(f"unknown actor {kind!r}: policy.actor is one of {', '.join(ACTORS)}.{nearest(kind, ACTORS)}")
        self.mlp = MemberMLP(rngs, [obs_dim, *hidden, action_dim], dropout)
        self.log_std = nn.Parameter(torch.zeros(len(rngs), 1, action_dim)) if kind == "gaussian" else None

    def forward(self, obs: Tensor, rngs: Sequence[np.random.Generator] | None = None) -> Tensor:
        """Mean actions (S, B, da) for obs (S, B, do); rngs draw the dropout masks (training)."""
        return torch.tanh(self.mlp(obs, rngs))

    def log_prob(self, obs: Tensor, actions: Tensor, rngs: Sequence[np.random.Generator] | None = None) -> Tensor:
        """log pi(a|s) (S, B), up to a constant for the deterministic kind."""
        squared = (self(obs, rngs) - actions).square()
        if self.log_std is None:
            return -squared.sum(-1)
        log_std = self.log_std.clamp(*LOG_STD_RANGE)
        return -(0.5 * squared * torch.exp(-2 * log_std) + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


class TwinCritic(nn.Module):
    """Two independent Q networks a member, all 2 S of them in one batched product."""

    def __init__(self, rngs: Sequence[np.random.Generator], obs_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.mlp = MemberMLP([*rngs, *rngs], [obs_dim + action_dim, *hidden, 1])

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Q_1 and Q_2, (2, S, B), for obs (S, B, do) and actions (S, B, da)."""
        members, batch = obs.shape[:2]
        x = torch.cat([obs, actions], -1).repeat(2, 1, 1)
        return self.mlp(x).view(2, members, batch)


class NumpyPolicy:
    """One member of an actor, in numpy: a step of one environment costs tens of microseconds, several times less than torch.

    weights, biases: one a layer, (i, o) and (o,); log_std (da,) or None; rng draws the actions that are not deterministic.
    activation: relu or tanh, of the hidden layers.  ending: what makes an action of the outputs: tanh, clip, or bins, so many of
    which every number of an action has.  within: mean and deviation (do,) that observations are standardised by, and the largest
    number to come of it, for policies that were trained so.
    """

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        biases: Sequence[np.ndarray],
        log_std: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
        activation: str = "relu",
        ending: str = "tanh",
        bins: int = 0,
        within: tuple[np.ndarray, np.ndarray, float] | None = None,
    ) -> None:
        self.layers = [
            (np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))
            for weight, bias in zip(weights, biases, strict=True)
        ]
        self.obs_dim = len(self.layers[0][0])
        self.std = None if log_std is None else np.exp(log_std.clip(*LOG_STD_RANGE)).astype(np.float32)
        self.rng = np.random.default_rng(0) if rng is None else rng
        self.activation, self.ending, self.bins, self.within = activation, ending, bins, within

    def act(self, obs: np.ndarray, deterministic: bool = True) -> np.ndarray:
        """Actions (N, da) float32 in [-1, 1] for raw observations (N, do).  A deterministic actor ignores the flag.

        RoboprefError for observations of another width, or that hold NaN.
        """
        if obs.shape[-1] != self.obs_dim:  # one number would be standardised as if it stood for all
            raise RoboprefError(f"the policy sees {self.obs_dim} numbers an observation, it was given {obs.shape}")
        if self.within is not None:
            mean, std, largest = self.within
            obs = ((obs - mean) / std).clip(-largest, largest)
        x = np.asarray(obs, np.float32)
        for weight, bias in self.layers[:-1]:
            x = x @ weight
            x += bias
            if self.activation == "tanh":
                np.tanh(x, out=x)
            else:
                np.maximum(x, 0.0, out=x)
        weight, bias = self.layers[-1]
        out = x @ weight + bias
        if np.isnan(out).any():
            raise RoboprefError("the observation holds NaN, for which the policy has no action: look at where it comes from")
        if self.ending == "bins":
            return self.choose(out.reshape(len(out), -1, self.bins), deterministic)
        action = np.tanh(out) if self.ending == "tanh" else out
        if self.std is not None and not deterministic:
            action = action + self.std * self.rng.standard_normal(action.shape, np.float32)
        return np.clip(action, -1.0, 1.0, out=action)

    def choose(self, logits: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions (N, da) from logits (N, da, bins): the likeliest bin, or one that is drawn (by Gumbel's maximum)."""
        if not deterministic:
            logits = logits + self.rng.gumbel(size=logits.shape)
        return (logits.argmax(-1) * (2 / (self.bins - 1)) - 1).astype(np.float32)


def save_policy(
    folder: Path, actor: Actor, normaliser: Normaliser, config: Mapping[str, Any], members: slice = slice(None)
) -> None:
    """Write the members, the normaliser and `config` (needs "seeds" and "policy") as the model folder of load_policy.

    A normaliser of rows (S, do) is each member's own, and config["obs_limit"] the largest number that it may give.
    """
    tensors = {f"actor.{name}": tensor[members] for name, tensor in actor.state_dict().items()}
    tensors |= {"obs_mean": normaliser.mean, "obs_std": normaliser.std}
    dims = {"obs_dim": normaliser.mean.shape[-1], "action_dim": list(actor.mlp.parameters())[-1].shape[-1]}
    save_model(folder, "policy", tensors, {**config, **dims})


def load_policy(folder: str | Path, member: int = 0) -> NumpyPolicy:
    """Member number `member` of a trained run, ready to act on raw observations; strict about names and shapes."""
    tensors, config = load_model(folder, "policy")
    with as_written(folder, "train it again"):
        members, settings = len(config["seeds"]), config["policy"]
        if not 0 <= member < members:
            raise RoboprefError(
                f"{folder} holds members 0 to {members - 1}, not {member}: train with more seeds, or ask for fewer"
            )
        sizes = [config["obs_dim"], *settings["hidden"], config["action_dim"]]
        weights = {name.removeprefix("actor."): tensor for name, tensor in tensors.items() if name.startswith("actor.")}
        check_sizes(members, sizes, weights, folder)
        actor = Actor(
            member_rngs(config["seeds"], "weights"),
            config["obs_dim"],
            config["action_dim"],
            settings["hidden"],
            settings["actor"],
        )
        load_strict(actor, weights, folder)
        mean, std = (tensors[name].double().numpy() for name in ("obs_mean", "obs_std"))
        mean, std = (part if part.ndim == 1 else part[member] for part in (mean, std))
        if not mean.shape == std.shape == (config["obs_dim"],):
            raise ValueError(f"obs_mean of shape {mean.shape}, obs_std of {std.shape}")
        activation, ending = settings.get("activation", "relu"), settings.get("ending", "tanh")
        bins = settings.get("bins", 0) if ending == "bins" else 0
        if activation not in ("relu", "tanh") or ending not in ("tanh", "clip", "bins"):
            raise ValueError(f"activation {activation!r}, ending {ending!r}")
        if ending == "bins" and (not isinstance(bins, int) or bins < 2 or config["action_dim"] % bins):
            raise ValueError(f"{bins!r} bins of {config['action_dim']} outputs")
        layers = [
            (layer.weight[member].detach().double().numpy(), layer.bias[member, 0].detach().double().numpy())
            for layer in actor.mlp.layers
            if isinstance(layer, MemberLinear)
        ]
        within = None
        if "obs_limit" in config:
            within = mean, std, float(config["obs_limit"])
        else:  # (x - mean)/std @ W + b, as one product
            first, bias = layers[0]
            layers[0] = (first / std[:, None], bias - (mean / std) @ first)
        acting = member_rngs([config["seeds"][member]], "acting")[0]
    if not all(np.isfinite(weight).all() and np.isfinite(bias).all() for weight, bias in layers):
        raise RoboprefError(
            f"{folder}, member {member}: its weights hold NaN or infinity: train again with a lower learning rate"
        )
    return NumpyPolicy(
        [weight for weight, _ in layers],
        [bias for _, bias in layers],
        None if actor.log_std is None else actor.log_std[member, 0].detach().numpy(),
        acting,
        activation,
        ending,
        bins,
        within,
    )
