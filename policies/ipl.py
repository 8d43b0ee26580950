"""Inverse preference learning (Hejna and Sadigh 2023): preferences teach Q itself; no reward network, no second stage.

Every Q implies a reward, r(s, a) = Q(s, a) - gamma V(s'), the inverse Bellman operator.  That reward has to explain the labels
as a Bradley-Terry reward would; a penalty on its square picks one among the many that do.  V and the actor are IQL's.
What the paper leaves open is taken from its repository (ipl_iql, Meta-World): each of the two critics explains the labels by
itself, and the pairs' steps and the other transitions of the data share V, the penalty and the actor by `data_share`.

Axes: S members, P pairs, K steps, R transitions beside the pairs' steps, N = 2 P K + R.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import IPLConfig
from robopref.policies.iql import ActorCritic, anneal, average
from robopref.policies.replay import PairBatch, Pairs, Transitions, sample_numbers
from robopref.preference.reward import preference_loss


def inverse_loss(reward: Tensor, pairs: PairBatch, share: Tensor, penalty: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the pairs' choice plus penalty times the average r^2, summed over the two critics.

    reward: (2, S, N), the steps of all segments a, then of all b, then other transitions; share (N,) sums to 1.
    """
    count, steps = pairs.a.shape[1:]
    a, b = reward[..., : 2 * count * steps].unflatten(-1, (2, count, steps)).unbind(-3)
    score_a, score_b = ((weight * side).sum(-1) for weight, side in ((pairs.weight_a, a), (pairs.weight_b, b)))
    choice, metrics = preference_loss(score_a, score_b, pairs.label.expand_as(score_a))
    size = average(reward.square(), share)
    loss = (choice + penalty * size).sum(0)
    said = {"preference": choice.mean(0), "reward_size": size.mean(0), "accuracy": metrics["accuracy"].mean(0)}
    return loss, {name: value.detach() for name, value in said.items()}


class IPL:
    """Q, V and actor from labelled pairs and unlabelled transitions, all in every step."""

    def __init__(self, config: IPLConfig, data: Transitions, pairs: Pairs, seeds: Sequence[int]) -> None:
        if not 0 <= config.data_share <= 1:
            raise RoboprefError(f"policy.data_share is {config.data_share}: give a number from 0 (pairs only) to 1")
        self.config, self.data, self.pairs, self.steps = config, data, pairs, config.steps
        self.networks = ActorCritic(config, data, seeds)
        self.actor, self.modules, self.optimizers = self.networks.actor, self.networks.modules, self.networks.optimizers

    def update(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One step of value, actor, critics and targets; metrics (S,) by name."""
        config = self.config
        pairs = self.pairs.sample(rngs, config.pairs, config.segment_steps)
        others = sample_numbers(rngs, len(self.data), config.batch, self.data.obs.device)
        batch = self.data.batch(torch.cat([pairs.a.flatten(1), pairs.b.flatten(1), others], 1))
        share = shares(2 * pairs.a[0].numel(), config.batch, config.data_share, others.device)

        def q_loss(q: Tensor, next_value: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return inverse_loss(q - config.discount * next_value, pairs, share, config.penalty)

        anneal(self.networks.optimizers["actor"], config, step / self.steps)
        return self.networks.learn(batch, q_loss, rngs, share)


def shares(pair_steps: int, others: int, data_share: float, device: torch.device) -> Tensor:
    """(pair_steps + others,) weights that sum to 1: the last `others` have `data_share` of it, each group in equal parts."""
    parts = torch.tensor([(1 - data_share) / pair_steps, data_share / others], device=device)
    return parts.repeat_interleave(torch.tensor([pair_steps, others], device=device))
