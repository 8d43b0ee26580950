"""Rewards learned from preferences: Bradley-Terry networks of S members, and the interface that every reward has.

Comes after annotation; P-IQL (policies/iql.py) trains these networks and learns from what they say.

Axes: S members, B pairs, N transitions, do and da numbers in an observation and an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.configs.checkpoint import check_sizes, load_model, load_strict, save_model
from robopref.configs.errors import RoboprefError
from robopref.configs.files import as_written
from robopref.configs.finite import check_weights
from robopref.embodied.control import same_environment
from robopref.preference.hub import find_model
from robopref.preference.members import MemberMLP, member_rngs


class RewardFunction(Protocol):
    """What a transition is worth: networks and written code alike."""

    def __call__(self, obs: np.ndarray, actions: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
        """obs (N, do), actions (N, da), next_obs (N, do), all raw -> (N,)."""


def preference_loss(score_a: Tensor, score_b: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the Bradley-Terry choice P(b preferred) = sigmoid(score_b - score_a).

    score_a, score_b, label: (..., B), label = P(b preferred) in [0, 1], 0.5 a tie.  Returns the mean over B and
    {"accuracy"}: among pairs with a winner, how often the score agrees (NaN without such a pair).
    """
    logit = score_b - score_a
    loss = F.binary_cross_entropy_with_logits(logit, label, reduction="none").mean(-1)
    return loss, {"accuracy": choice_accuracy(logit.detach(), label)}


def choice_accuracy(logit: Tensor, label: Tensor) -> Tensor:
    """Share of the pairs with a winner that the sign of `logit` (..., B) gets right; a tie cannot be right or wrong."""
    decided = label != 0.5
    right = ((logit > 0) == (label > 0.5)) & decided
    return right.sum(-1) / decided.sum(-1)


class BradleyTerryReward(nn.Module):
    """S networks r(s, a); a segment is scored by the sum of its rewards."""

    def __init__(self, rngs: Sequence[np.random.Generator], obs_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.mlp = MemberMLP(rngs, [obs_dim + action_dim, *hidden, 1])

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """r (S, B) for normalised obs (S, B, do) and actions (S, B, da)."""
        return self.mlp(torch.cat([obs, actions], -1)).squeeze(-1)

    def segment_score(self, obs: Tensor, actions: Tensor, weight: Tensor) -> Tensor:
        """Weighted sums of r over K steps, (S, B), for obs (S, B, K, do), actions (S, B, K, da), weight (S, B, 1)."""
        members, batch, steps = obs.shape[:3]
        rewards = self(obs.flatten(1, 2), actions.flatten(1, 2)).view(members, batch, steps)
        return (weight * rewards).sum(-1)


def save_reward(folder: Path, reward: BradleyTerryReward, obs_mean: Tensor, obs_std: Tensor, config: Mapping[str, Any]) -> None:
    """Write all members and `config` (needs "seeds", "hidden" and "action_dim") as the model folder of load_reward."""
    tensors = {f"reward.{name}": tensor for name, tensor in reward.state_dict().items()}
    save_model(folder, "reward", {**tensors, "obs_mean": obs_mean, "obs_std": obs_std}, config)


class LearnedReward:
    """A trained Bradley-Terry reward, as a RewardFunction on raw observations.

    member: which of its networks to ask; None: the mean of them all.
    """

    def __init__(self, folder: str | Path, member: int | None = 0) -> None:
        tensors, config = load_model(folder, "reward")
        with as_written(folder, "train it again"):
            members = len(config["seeds"])
            if member is not None and not 0 <= member < members:
                raise RoboprefError(f"{folder} holds members 0 to {members - 1}, not {member}: train with more seeds")
            self.obs_mean, self.obs_std = tensors["obs_mean"], tensors["obs_std"]
            self.member = member
            self.dims: tuple[int, int] = (len(self.obs_mean), config["action_dim"])
            self.env: str | None = config.get("env")  # where it was learnt; what version 0.1 wrote does not say
            if self.obs_mean.shape != self.obs_std.shape or not isinstance(self.env, str | None):
                raise ValueError("obs_std of another length, or env that is no name")
            weights = {name.removeprefix("reward."): tensor for name, tensor in tensors.items() if name.startswith("reward.")}
            check_weights(weights, folder)
            check_sizes(members, [sum(self.dims), *config["hidden"], 1], weights, folder)
            self.net = BradleyTerryReward(member_rngs(config["seeds"], "weights"), *self.dims, config["hidden"])
            load_strict(self.net, weights, folder)

    @torch.no_grad()
    def __call__(self, obs: np.ndarray, actions: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
        """r (N,) float32; next_obs is not looked at.  RoboprefError for transitions of another width."""
        widths = obs.shape[1:], actions.shape[1:]
        if widths != ((self.dims[0],), (self.dims[1],)):
            raise RoboprefError(
                f"a learned reward of {self.dims[0]} numbers an observation and {self.dims[1]} an action was given "
                f"{obs.shape} and {actions.shape}: give (N, {self.dims[0]}) and (N, {self.dims[1]})"
            )
        x = (torch.as_tensor(obs, dtype=torch.float32) - self.obs_mean) / self.obs_std
        a = torch.as_tensor(actions, dtype=torch.float32)
        members = len(next(self.net.parameters()))
        rewards = self.net(x.expand(members, -1, -1), a.expand(members, -1, -1))
        return (rewards.mean(0) if self.member is None else rewards[self.member]).numpy()


def reward_of(reference: str, member: int | None, where: str, env_id: str | None, dims: tuple[int, int]) -> LearnedReward:
    """The learned reward that `reward=REFERENCE` names, a folder or hf-hub:..., for the transitions of `where`.

    member: as of LearnedReward.  env_id and dims: environment (None: not known) and sizes (do, da) of `where`.  RoboprefError
    when it was learnt in another environment, where the same number of an observation means something else, or of other sizes.
    """
    reward = LearnedReward(find_model(reference, "reward"), member)
    if reward.env is not None and env_id is not None and not same_environment(reward.env, env_id):
        of = "" if where == env_id else f"of {env_id}, "
        raise RoboprefError(
            f"reward={reference} was learnt in {reward.env}, and {where} is {of}another environment, whose numbers mean "
            "something else: give the reward of this environment"
        )
    if reward.dims != dims:
        raise RoboprefError(
            f"reward={reference} is of {reward.dims[0]} numbers an observation and {reward.dims[1]} an action, {where} has "
            f"{dims[0]} and {dims[1]}: give the reward of this environment"
        )
    return reward
