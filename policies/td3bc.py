"""TD3+BC (Fujimoto & Gu 2021): TD3, whose actor climbs Q and is held at the data's actions.

With lambda = alpha / mean |Q(s, pi(s))|, which no gradient goes through, the actor minimises

    -lambda mean Q_1(s, pi(s)) + mean (pi(s) - a)^2;

the mean over a batch, and of the second over an action's numbers too, as in the authors' code (sfujim/TD3_BC).  Critics learn as
TD3's do: the target is the smaller of two slow critics at the slow actor's action, with clipped noise.  Observations are
normalised; rewards are as they come.

Axes: S members, B batch, M transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from robopref.configs.errors import UsageError
from robopref.configs.policy import TD3BCConfig
from robopref.policies.graphs import Graphed
from robopref.policies.iql import critic_loss, polyak
from robopref.policies.networks import Actor, TwinCritic
from robopref.policies.replay import Transitions, sample_numbers, taken
from robopref.preference.members import adam, descend, each_once, member_rngs


def smoothed(actions: Tensor, noise: Tensor, deviation: float, clip: float) -> Tensor:
    """Target actions: pi(s') plus noise of this deviation, clipped, within [-1, 1]; noise: standard normal, any shape."""
    return (actions + (noise * deviation).clamp(-clip, clip)).clamp(-1, 1)


def bellman_target(reward: Tensor, q: Tensor, terminal: Tensor | None, discount: float) -> Tensor:
    """r + discount (1 - terminal) min_i Q_i for q (2, ..., B), reward and terminal (..., B)."""
    value = q.amin(0)
    return reward + discount * (value if terminal is None else (1 - terminal) * value)


def actor_loss(q: Tensor, proposed: Tensor, actions: Tensor, alpha: float) -> tuple[Tensor, dict[str, Tensor]]:
    """-lambda mean Q + mean (pi(s) - a)^2 (Eq. 3 and 5); q: (..., B), proposed = pi(s) and actions: (..., B, da)."""
    scale = alpha / q.detach().abs().mean(-1)
    clone = (proposed - actions).square().mean((-2, -1))
    loss = clone - scale * q.mean(-1)
    return loss, {"actor": loss.detach(), "clone": clone.detach(), "lambda": scale}


def first_q(critic: TwinCritic, obs: Tensor, actions: Tensor) -> Tensor:
    """Q_1 (S, B) with a gradient for the actions alone; the critics' own would cost as much again, for nothing."""
    members, x = len(obs), torch.cat([obs, actions], -1)
    *hidden, last = [(weight.detach()[:members], bias.detach()[:members]) for weight, bias in layers_of(critic)]
    for weight, bias in hidden:
        x = torch.baddbmm(bias, x, weight).relu()
    return torch.baddbmm(last[1], x, last[0]).squeeze(-1)


def layers_of(critic: TwinCritic) -> list[tuple[Tensor, Tensor]]:
    """Weight (2 S, i, o) and bias (2 S, 1, o) of every layer; the first S are those of the first critics."""
    parameters = list(critic.mlp.parameters())
    return list(zip(parameters[::2], parameters[1::2], strict=True))


class TD3BC:
    """TD3+BC on given rewards; rewards (M,) or (S, M), by default those of the data."""

    def __init__(self, config: TD3BCConfig, data: Transitions, seeds: Sequence[int], rewards: Tensor | None = None) -> None:
        if config.actor != "deterministic":
            raise UsageError(f"policy.actor={config.actor}: TD3+BC has a deterministic one")
        self.config, self.data, self.steps = config, data, config.steps
        self.rewards = (data.rewards if rewards is None else rewards).expand(len(seeds), -1)
        rngs, device, dims = member_rngs(seeds, "weights"), data.obs.device, data.dims
        self.actor = Actor(rngs, *dims, config.hidden, config.actor, config.dropout).to(device)
        self.critic = TwinCritic(rngs, *dims, config.hidden).to(device)
        self.target_actor = Actor(rngs, *dims, config.hidden).to(device).requires_grad_(False)
        self.target_critic = TwinCritic(rngs, *dims, config.hidden).to(device).requires_grad_(False)
        self.target_actor.load_state_dict(self.actor.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.modules = {
            "actor": self.actor,
            "critic": self.critic,
            "target_actor": self.target_actor,
            "target_critic": self.target_critic,
        }
        self.optimizers = {name: adam(self.modules[name], config.learning_rate, data.obs.is_cuda) for name in ("actor", "critic")}
        graphed = data.obs.is_cuda and config.dropout == 0  # dropout's masks come anew
        self.graphs = {both: Graphed(partial(self.learn, both, ())) for both in (False, True)} if graphed else {}

    def update(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One step of the critics, and with every `delay`-th one of the actor and the targets; metrics (S,) by name."""
        config, data, device = self.config, self.data, self.data.obs.device
        numbers = sample_numbers(rngs, len(data), config.batch, device)
        size = config.batch, data.actions.shape[-1]
        noise = torch.from_numpy(each_once(rngs, lambda rng: rng.standard_normal(size, np.float32))).to(device)
        both = (step + 1) % config.delay == 0
        return self.graphs[both](numbers, noise) if self.graphs else self.learn(both, rngs, numbers, noise)

    def learn(self, both: bool, rngs: Sequence[np.random.Generator], numbers: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """`update` on the transitions of these numbers (S, B) with this noise (S, B, da); both: the actor, too."""
        config, data = self.config, self.data
        batch, reward = data.batch(numbers), self.rewards.gather(1, numbers)
        with torch.no_grad():
            following = smoothed(self.target_actor(batch.next_obs), noise, config.noise, config.noise_clip)
            terminal = None if data.terminals is None else taken(data.terminals, numbers)
            target = bellman_target(reward, self.target_critic(batch.next_obs, following), terminal, config.discount)
        loss, metrics = critic_loss(self.critic(batch.obs, batch.actions), target)
        descend(self.optimizers["critic"], loss)
        if not both:
            return metrics

        proposed = self.actor(batch.obs, rngs)
        loss, actor_metrics = actor_loss(first_q(self.critic, batch.obs, proposed), proposed, batch.actions, config.alpha)
        descend(self.optimizers["actor"], loss)
        polyak(self.target_critic, self.critic, config.polyak)
        polyak(self.target_actor, self.actor, config.polyak)
        return metrics | actor_metrics
