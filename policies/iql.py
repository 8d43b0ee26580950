"""Implicit Q-learning (Kostrikov et al. 2021), and P-IQL: the same from a reward that preferences taught.

Values never ask about an action outside the data: V is an expectile of the data's Q, the actor clones the data's actions,
weighted by how much better than V they are.  All transitions bootstrap, because Meta-World's episodes end by time only.
Inverse preference learning (policies/ipl.py) has the same networks and learns Q in another way.

Axes: S members, B batch, M transitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from robopref.configs.policy import IPLConfig, IQLConfig, PIQLConfig
from robopref.policies.networks import Actor, TwinCritic
from robopref.policies.replay import Batch, Pairs, Transitions, sample_numbers
from robopref.preference.members import MemberMLP, adam, descend, member_rngs
from robopref.preference.reward import BradleyTerryReward, preference_loss

RELABEL_CHUNK = 8192  # transitions scored at once, to bound memory


def average(values: Tensor, share: Tensor | None = None) -> Tensor:
    """Mean of values (..., B) over B, or their sum weighted by `share` (B,), which sums to 1."""
    return values.mean(-1) if share is None else (values * share).sum(-1)


def expectile_loss(error: Tensor, expectile: float, share: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Average of |expectile - 1(u < 0)| u^2 for u = Q - V = error (..., B)  (IQL, Eq. 5)."""
    weight = torch.where(error < 0, 1 - expectile, expectile)
    loss = average(weight * error.square(), share)
    return loss, {"value": loss.detach()}


def advantage_weight(advantage: Tensor, temperature: float, clip: float) -> Tensor:
    """min(exp(A / temperature), clip), elementwise."""
    return torch.exp(advantage / temperature).clamp(max=clip)


def weighted_cloning_loss(log_prob: Tensor, weight: Tensor, share: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Average of -weight log pi(a|s)  (IQL, Eq. 7); log_prob, weight: (..., B)."""
    loss = -average(weight * log_prob, share)
    return loss, {"actor": loss.detach(), "weight": average(weight, share)}


def critic_loss(q: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of (Q_i - target)^2, summed over the two critics  (IQL, Eq. 6); q: (2, ..., B), target: (..., B)."""
    loss = (q - target).square().mean(-1).sum(0)
    return loss, {"critic": loss.detach(), "q": q.detach().mean(-1).mean(0)}


class ActorCritic:
    """Actor, V, twin Q and its slow target, S members of each, and their optimisers: what IQL and IPL have in common."""

    def __init__(self, config: IQLConfig | IPLConfig, data: Transitions, seeds: Sequence[int]) -> None:
        self.config = config
        rngs, device = member_rngs(seeds, "weights"), data.obs.device
        self.actor = Actor(rngs, *data.dims, config.hidden, config.actor, config.dropout).to(device)
        self.value = MemberMLP(rngs, [data.dims[0], *config.hidden, 1]).to(device)
        self.critic = TwinCritic(rngs, *data.dims, config.hidden).to(device)
        self.target = TwinCritic(rngs, *data.dims, config.hidden).to(device).requires_grad_(False)
        self.target.load_state_dict(self.critic.state_dict())
        self.modules = {"actor": self.actor, "value": self.value, "critic": self.critic, "target": self.target}
        self.optimizers = {name: adam(self.modules[name], config.learning_rate) for name in ("actor", "value", "critic")}

    def learn(
        self,
        progress: float,
        batch: Batch,
        q_loss: Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]],
        rngs: Sequence[np.random.Generator],
        share: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One step of V, actor, Q and targets, in this order; metrics (S,) by name.

        progress: share of the training that is done.  q_loss: from Q (2, S, B) and V of the next observation (S, B) to a loss
        (S,) and its metrics.  share: how much each transition of the batch counts for V and the actor (default: all alike).
        """
        config = self.config
        with torch.no_grad():
            q = self.target(batch.obs, batch.actions).amin(0)
        loss, metrics = expectile_loss(q - self.value(batch.obs).squeeze(-1), config.expectile, share)
        descend(self.optimizers["value"], loss)

        with torch.no_grad():
            both = self.value(torch.cat([batch.obs, batch.next_obs], 1)).squeeze(-1)
            value, next_value = both.chunk(2, 1)
            weight = advantage_weight(q - value, config.temperature, config.clip)
        if config.actor_cosine:
            self.optimizers["actor"].param_groups[0]["lr"] = config.learning_rate * cosine(progress)
        loss, actor_metrics = weighted_cloning_loss(self.actor.log_prob(batch.obs, batch.actions, rngs), weight, share)
        descend(self.optimizers["actor"], loss)

        loss, critic_metrics = q_loss(self.critic(batch.obs, batch.actions), next_value)
        descend(self.optimizers["critic"], loss)
        polyak(self.target, self.critic, config.polyak)
        return metrics | actor_metrics | critic_metrics


class IQL:
    """IQL on given rewards; rewards (M,) or (S, M), by default the environment's own."""

    def __init__(self, config: IQLConfig, data: Transitions, seeds: Sequence[int], rewards: Tensor | None = None) -> None:
        self.config, self.data, self.steps = config, data, config.steps
        self.set_rewards(data.rewards.expand(len(seeds), -1) if rewards is None else rewards)
        self.networks = ActorCritic(config, data, seeds)
        self.actor, self.modules, self.optimizers = self.networks.actor, self.networks.modules, self.networks.optimizers

    def set_rewards(self, rewards: Tensor) -> None:
        """Learn from rewards (S, M) from now on, shifted and scaled a member as `reward_std` says."""
        if self.config.reward_std > 0:
            spread = rewards.std(-1, correction=0, keepdim=True).clamp(min=1e-8)
            rewards = (rewards - rewards.mean(-1, keepdim=True)) * (self.config.reward_std / spread)
        self.rewards = rewards

    def update(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One step of value, actor, critics and targets; metrics (S,) by name."""
        numbers = sample_numbers(rngs, len(self.data), self.config.batch, self.data.obs.device)
        reward = self.rewards.gather(1, numbers)

        def bellman_loss(q: Tensor, next_value: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return critic_loss(q, reward + self.config.discount * next_value)

        return self.networks.learn(step / self.steps, self.data.batch(numbers), bellman_loss, rngs)


class PIQL:
    """Bradley-Terry reward from pairs for `reward_steps`, then IQL on what it says about every transition."""

    def __init__(self, config: PIQLConfig, data: Transitions, pairs: Pairs, seeds: Sequence[int]) -> None:
        self.config, self.data, self.pairs = config, data, pairs
        self.steps = config.reward_steps + config.steps
        self.iql = IQL(config, data, seeds)
        self.actor = self.iql.actor
        self.reward = BradleyTerryReward(member_rngs(seeds, "reward"), *data.dims, config.hidden).to(data.obs.device)
        self.modules = {**self.iql.modules, "reward": self.reward}
        self.optimizers = {**self.iql.optimizers, "reward": adam(self.reward, config.reward_learning_rate)}
        self.relabelled = False

    def update(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One step of the reward, and after `reward_steps` of IQL; metrics (S,) by name."""
        if step < self.config.reward_steps:
            return self.update_reward(rngs)
        if not self.relabelled:  # not part of a checkpoint: a resumed run computes the same from the same reward
            self.iql.set_rewards(self.label())
            self.relabelled = True
        return self.iql.update(step - self.config.reward_steps, rngs)

    def update_reward(self, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One Bradley-Terry step."""
        batch = self.pairs.sample(rngs, self.config.pairs, self.config.segment_steps)
        a = self.reward.segment_score(*self.data.state_action(batch.a), batch.weight_a)
        b = self.reward.segment_score(*self.data.state_action(batch.b), batch.weight_b)
        loss, metrics = preference_loss(a, b, batch.label)
        descend(self.optimizers["reward"], loss)
        return {"reward": loss.detach(), "reward_accuracy": metrics["accuracy"]}

    @torch.no_grad()
    def label(self) -> Tensor:
        """The learned reward of every transition, (S, M)."""
        members = len(next(self.reward.parameters()))
        numbers = torch.arange(len(self.data), device=self.data.obs.device).expand(members, -1)
        chunks = [self.reward(*self.data.state_action(chunk)) for chunk in numbers.split(RELABEL_CHUNK, 1)]
        return torch.cat(chunks, 1)


def cosine(progress: float) -> float:
    """Factor that falls from 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def polyak(target: torch.nn.Module, source: torch.nn.Module, rate: float) -> None:
    """target <- (1 - rate) target + rate source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)
