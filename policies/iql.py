"""Implicit Q-learning (Kostrikov et al. 2021), and P-IQL: the same from a reward that preferences taught.

Values never ask about an action outside the data: V is an expectile of the data's Q, the actor clones the data's actions,
weighted by how much better than V they are.  Transitions bootstrap, but for those that end an episode for good: Meta-World has
none (its episodes end by time), D4RL's hopper and walker2d do.  Inverse preference learning (policies/ipl.py) has the same
networks and learns Q in another way.

On D4RL (configs/policy/iql_d4rl.yaml) the settings are those of the paper and of its code (ikostrikov/implicit_q_learning), in
which the actor is what `gaussian` is here: a Gaussian around a tanh of the network, with a deviation a dimension that no state
changes, in [exp(-5), exp(2)].  Its weights begin orthogonal, ours as torch.nn.Linear's.

Axes: S members, B batch, M transitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from robopref.configs.policy import IPLConfig, IQLConfig, PIQLConfig
from robopref.policies.graphs import Graphed
from robopref.policies.mixed import OneArray, Pass, adam_step, is_mixed
from robopref.policies.networks import LOG_STD_RANGE, Actor, TwinCritic
from robopref.policies.replay import Batch, Pairs, Transitions, sample_numbers, taken
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
        names = ("actor", "value", "critic")
        self.optimizers = {name: adam(self.modules[name], config.learning_rate, data.obs.is_cuda) for name in names}
        make_movable(self.optimizers["actor"], device)

    def learn(
        self,
        batch: Batch,
        q_loss: Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]],
        rngs: Sequence[np.random.Generator],
        share: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One step of V, actor, Q and targets, in this order; metrics (S,) by name.

        q_loss: from Q (2, S, B) and V of the next observation (S, B) to a loss (S,) and its metrics.  share: how much each
        transition of the batch counts for V and the actor (default: all alike).
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
        loss, actor_metrics = weighted_cloning_loss(self.actor.log_prob(batch.obs, batch.actions, rngs), weight, share)
        descend(self.optimizers["actor"], loss)

        loss, critic_metrics = q_loss(self.critic(batch.obs, batch.actions), next_value)
        descend(self.optimizers["critic"], loss)
        polyak(self.target, self.critic, config.polyak)
        return metrics | actor_metrics | critic_metrics


class MixedActorCritic:
    """The same networks and the same step in mixed precision, with gradients written down; the members' weights are views."""

    def __init__(self, config: IQLConfig, data: Transitions, seeds: Sequence[int], mixed: bool = True) -> None:
        """mixed: False for float32 throughout, in which the step is ActorCritic's."""
        networks = ActorCritic(config, data, seeds)
        self.config, self.modules = config, networks.modules
        self.actor, self.value, self.critic, self.target = networks.actor, networks.value, networks.critic, networks.target
        arrays = {name: OneArray(module) for name, module in self.modules.items()}
        self.of_log_std = arrays["actor"].gradients.get("log_std")
        mlps = {"actor": self.actor.mlp, "value": self.value, "critic": self.critic.mlp, "target": self.target.mlp}
        self.passes = {name: Pass(mlp, arrays[name].gradients, mixed) for name, mlp in mlps.items()}
        self.values = {name: array.values.data for name, array in arrays.items()}
        self.optimizers = {
            name: torch.optim.Adam([arrays[name].values], config.learning_rate, fused=True) for name in networks.optimizers
        }
        make_movable(self.optimizers["actor"], data.obs.device)

    @torch.inference_mode()
    def learn(
        self, batch: Batch, reward: Tensor, discount: Tensor | float, rngs: Sequence[np.random.Generator]
    ) -> dict[str, Tensor]:
        """ActorCritic.learn with Bellman's target; reward and discount (of what comes next): (S, B)."""
        config, (members, size) = self.config, reward.shape
        both = torch.cat([batch.obs, batch.actions], -1).repeat(2, 1, 1)
        q = self.passes["target"](both).view(2, members, size).amin(0)
        error = q - self.passes["value"](batch.obs).squeeze(-1)
        _, metrics = expectile_loss(error, config.expectile)
        slope = error * torch.where(error < 0, 1 - config.expectile, config.expectile)
        self.descend("value", slope * (-2 / size))

        values = self.passes["value"](torch.cat([batch.obs, batch.next_obs], 1)).squeeze(-1)
        value, next_value = values.chunk(2, 1)
        weight = advantage_weight(q - value, config.temperature, config.clip)
        metrics |= self.clone(batch, weight, rngs)

        target = reward + discount * next_value
        q = self.passes["critic"](both).view(2, members, size)
        _, critic_metrics = critic_loss(q, target)
        self.descend("critic", ((q - target) * (2 / size)).view(2 * members, size))
        self.values["target"].lerp_(self.values["critic"], config.polyak)
        return metrics | critic_metrics

    def clone(self, batch: Batch, weight: Tensor, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One step of the actor on the data's actions, which count weight (S, B) each; metrics."""
        mean = torch.tanh(self.passes["actor"](batch.obs, rngs))
        error = mean - batch.actions
        share = weight.unsqueeze(-1) / weight.shape[1]
        if self.of_log_std is None or self.actor.log_std is None:
            log_prob, slope = -error.square().sum(-1), 2 * error
        else:
            raw = self.actor.log_std.data
            log_std = raw.clamp(*LOG_STD_RANGE)
            scaled = error * torch.exp(-2 * log_std)
            squared = scaled * error
            log_prob, slope = -(0.5 * squared + log_std + 0.5 * math.log(2 * math.pi)).sum(-1), scaled
            inside = (raw >= LOG_STD_RANGE[0]) & (raw <= LOG_STD_RANGE[1])
            self.of_log_std.copy_(((1 - squared) * share).sum(1, keepdim=True) * inside)
        _, metrics = weighted_cloning_loss(log_prob, weight)
        self.passes["actor"].backward(slope * share * (1 - mean.square()))
        adam_step(self.optimizers["actor"])
        return metrics

    def descend(self, name: str, slope: Tensor) -> None:
        """One step of a network from dL/dout (networks, B)."""
        self.passes[name].backward(slope.unsqueeze(-1))
        adam_step(self.optimizers[name])


class IQL:
    """IQL on given rewards; rewards (M,) or (S, M), by default the environment's own."""

    def __init__(self, config: IQLConfig, data: Transitions, seeds: Sequence[int], rewards: Tensor | None = None) -> None:
        self.config, self.data, self.steps = config, data, config.steps
        self.set_rewards(data.rewards.expand(len(seeds), -1) if rewards is None else rewards)
        self.precision = "mixed" if is_mixed(config.precision, data.obs.device) else "float32"  # what auto has come to
        self.networks = (MixedActorCritic if self.precision == "mixed" else ActorCritic)(config, data, seeds)
        self.actor, self.modules, self.optimizers = self.networks.actor, self.networks.modules, self.networks.optimizers

    def set_rewards(self, rewards: Tensor) -> None:
        """Learn from rewards (S, M) from now on, shifted and scaled a member as `reward_std` says."""
        if self.config.reward_std > 0:
            spread = rewards.std(-1, correction=0, keepdim=True).clamp(min=1e-8)
            rewards = (rewards - rewards.mean(-1, keepdim=True)) * (self.config.reward_std / spread)
        self.rewards = rewards
        self.graph = Graphed(self.learn) if rewards.is_cuda and self.config.dropout == 0 else None  # dropout's masks come anew

    def update(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One step of value, actor, critics and targets; metrics (S,) by name."""
        numbers = sample_numbers(rngs, len(self.data), self.config.batch, self.data.obs.device)
        anneal(self.networks.optimizers["actor"], self.config, step / self.steps)
        return self.learn(numbers, rngs) if self.graph is None else self.graph(numbers)

    def learn(self, numbers: Tensor, rngs: Sequence[np.random.Generator] = ()) -> dict[str, Tensor]:
        """`update` on the transitions of these numbers (S, B)."""
        reward, batch = self.rewards.gather(1, numbers), self.data.batch(numbers)
        discount: Tensor | float = self.config.discount
        if self.data.terminals is not None:
            discount = discount * (1 - taken(self.data.terminals, numbers))
        if isinstance(self.networks, MixedActorCritic):
            return self.networks.learn(batch, reward, discount, rngs)

        def bellman_loss(q: Tensor, next_value: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return critic_loss(q, reward + discount * next_value)

        return self.networks.learn(batch, bellman_loss, rngs)


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


def make_movable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """On a GPU let the learning rate be a tensor, which a CUDA graph reads anew with every replay."""
    (group,) = optimizer.param_groups
    if device.type == "cuda":
        group["lr"] = torch.tensor(group["lr"], device=device)


def anneal(optimizer: torch.optim.Optimizer, config: IQLConfig | IPLConfig, progress: float) -> None:
    """Set an actor's learning rate for the next step: it falls along a cosine where the settings say so.

    progress: share of the training that is done.
    """
    if not config.actor_cosine:
        return
    (group,) = optimizer.param_groups
    rate = config.learning_rate * cosine(progress)
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def cosine(progress: float) -> float:
    """Factor that falls from 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def polyak(target: torch.nn.Module, source: torch.nn.Module, rate: float) -> None:
    """target <- (1 - rate) target + rate source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)
