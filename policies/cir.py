"""CIR (Lyu et al., arXiv 2602.11800): soft actor-critic whose critics see states through constrained initial representations.

Both critics are deep, share one LayerNorm, and begin with a layer whose outputs are scaled down and squashed; their targets are a
convex combination of the smaller and the larger one, and a minibatch is used several times.  Every part is a switch of
`CIRConfig`; with all of them off this is soft actor-critic (Haarnoja et al. 2018).  Written from the paper's equations.

Axes: H critics (2), B batch, i inputs, h width, do and da numbers in an observation and an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.policy import CIRConfig
from robopref.policies.critics import ConstrainedCritics, Critics, TwinMLP
from robopref.policies.experience import Experience
from robopref.preference.members import adam, member_rngs

CRITICS = ("constrained", "mlp")
NORMS = ("shared", "own", "none")
ACTOR_Q = ("mean", "min")
LOG_STD_RANGE = (-20.0, 2.0)
CRITIC_HEADS = 2


def convex_q(q: Tensor, share: float) -> Tensor:
    """share min_i Q_i + (1 - share) max_i Q_i, (B,), for q (2, B); with 0.3 that is mean + 0.2 |Q_1 - Q_2|."""
    low, high = torch.aminmax(q, dim=0)
    return torch.lerp(high, low, share)


class SquashedGaussian(nn.Module):
    """pi(a | s) = tanh(N(mu(s), sigma(s))), from an MLP of ReLU layers (Haarnoja et al. 2018)."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [obs_dim, *hidden]
        layers = [layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), nn.ReLU())]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], 2 * action_dim))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, (B, da) each."""
        mean, log_std = self.body(obs).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, da) in (-1, 1) and log pi (B,), for obs (B, do) and standard normal noise (B, da)."""
        mean, log_std = self(obs)
        before = mean + log_std.exp() * noise
        log_normal = -(0.5 * noise.square() + log_std + 0.5 * math.log(2 * math.pi))
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which does not lose its digits for large u
        log_slope = 2 * (math.log(2) - before - F.softplus(-2 * before))
        return torch.tanh(before), (log_normal - log_slope).sum(-1)


class CIR:
    """The agent: networks, optimisers and the update.  `modules`, `optimizers` and `noise` are all that it remembers."""

    def __init__(self, config: CIRConfig, obs_dim: int, action_dim: int, seed: int, device: torch.device | str = "cpu") -> None:
        for name, options in (("critic", CRITICS), ("norm", NORMS), ("actor_q", ACTOR_Q)):
            if (value := getattr(config, name)) not in options:
                raise RoboprefError(f"policy.{name}={value}: one of {', '.join(options)}.{nearest(value, options)}")
        self.config = config
        self.action_dim, self.target_entropy = action_dim, -float(action_dim)
        seeds = [CRITIC_HEADS * seed + head for head in range(CRITIC_HEADS)]

        def critics(learns: bool) -> Critics:
            kind = TwinMLP if config.critic == "mlp" else ConstrainedCritics
            return kind(member_rngs(seeds, "critics"), obs_dim, action_dim, config, device, learns)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = SquashedGaussian(obs_dim, action_dim, [config.width] * 2).to(device)
        self.critic, self.target = critics(learns=True), critics(learns=False)
        self.temperature = Temperature(config.initial_temperature).to(device)
        self.noise = torch.Generator(device).manual_seed(seed)
        self.modules = {"actor": self.actor, "critic": self.critic, "target": self.target, "temperature": self.temperature}
        # Adam works element by element, so one optimiser for actor and temperature is two, and half the calls.
        both = nn.ModuleList([self.actor, self.temperature])
        self.optimizers = {
            "critic": adam(self.critic, config.learning_rate),
            "actor": adam(both, config.learning_rate),
        }

    @torch.no_grad()
    def act(self, obs: np.ndarray, deterministic: bool = False) -> np.ndarray:
        """An action (da,) for one observation (do,): drawn, or the mean, squashed."""
        row = torch.from_numpy(np.asarray(obs, np.float32))[None].to(self.noise.device)
        if deterministic:
            return torch.tanh(self.actor(row)[0][0]).cpu().numpy()
        return self.actor.sample(row, self.draw(1, self.action_dim))[0][0].cpu().numpy()

    def draw(self, count: int, action_dim: int) -> Tensor:
        """Standard normal noise (count, action_dim) from the agent's own generator."""
        return torch.randn(count, action_dim, generator=self.noise, device=self.noise.device)

    def update(self, batch: Experience) -> dict[str, Tensor]:
        """One step of critics, targets, actor and temperature on one minibatch; metrics by name."""
        config, (count, action_dim) = self.config, batch.actions.shape
        alpha = self.temperature.log_alpha.detach().exp()
        with torch.no_grad():
            next_actions, next_log_prob = self.actor.sample(batch.next_obs, self.draw(count, action_dim))
            value = convex_q(self.target(batch.next_obs, next_actions), config.low_share) - alpha * next_log_prob
            target = torch.addcmul(batch.rewards, 1 - batch.terminated, value, value=config.discount)
            q, critic_loss = self.critic.regress(batch.obs, batch.actions, target)
            self.optimizers["critic"].step()
            self.target.follow(self.critic, config.polyak)

        actions, log_prob = self.actor.sample(batch.obs, self.draw(count, action_dim))
        q_pi = self.critic(batch.obs, actions)
        actor_loss = (alpha * log_prob - (q_pi.mean(0) if config.actor_q == "mean" else q_pi.amin(0))).mean()
        entropy = -log_prob.detach().mean()
        temperature_loss = self.temperature.log_alpha * (entropy - self.target_entropy)
        step(self.optimizers["actor"], actor_loss + temperature_loss)
        losses = {"critic": critic_loss, "actor": actor_loss, "q": q.mean(), "entropy": entropy, "alpha": alpha}
        return {name: value.detach() for name, value in losses.items()}


class Temperature(nn.Module):
    """The weight of the entropy, as its logarithm."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(initial)))


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One optimiser step on `loss`; gradients of what the optimiser does not hold are not computed."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
