"""CIR (Lyu et al., arXiv 2602.11800): soft actor-critic whose critics see states through constrained initial representations.

Both critics are deep, share one LayerNorm, and begin with a layer whose outputs are scaled down and squashed; their targets are a
convex combination of the smaller and the larger one, and a minibatch is used several times.  Every part is a switch of
`CIRConfig`; with all of them off this is soft actor-critic (Haarnoja et al. 2018).  Written from the paper's equations.

Axes: H critics (2), B batch, i inputs, h width, do and da numbers in an observation and an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.policy import CIRConfig
from robopref.policies.critics import ConstrainedCritics, Critics, TwinMLP
from robopref.policies.experience import Experience, RunningNormaliser
from robopref.policies.flat import FlatNetworks, Tape, relu_backward_
from robopref.policies.mixed import adam_step
from robopref.preference.members import MemberLinear, adam, member_rngs

CRITICS = ("constrained", "mlp")
NORMS = ("shared", "own", "none")
ACTOR_Q = ("mean", "min")
ALPHA_LOSSES = ("alpha", "log_alpha")
PRECISIONS = ("float32", "mixed", "bfloat16")
LOG_STD_RANGE = (-20.0, 2.0)
CRITIC_HEADS = 2
ALL = slice(None)


def convex_q(q: Tensor, share: float) -> Tensor:
    """share min_i Q_i + (1 - share) max_i Q_i, (B,), for q (2, B); with 0.3 that is mean + 0.2 |Q_1 - Q_2|."""
    low, high = torch.aminmax(q, dim=0)
    return torch.lerp(high, low, share)


class SquashedGaussian(FlatNetworks):
    """pi(a | s) = tanh(N(mu(s), sigma(s))), from two ReLU layers (Haarnoja et al. 2018), and the temperature of its entropy.

    The temperature is learnt together with the actor, so `log_alpha` lies among its parameters and shares its optimiser's pass.
    """

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        obs_dim: int,
        action_dim: int,
        config: CIRConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        sizes = {"d0": (obs_dim, config.width), "d1": (config.width, config.width), "out": (config.width, 2 * action_dim)}
        layers = {name: MemberLinear(rngs, *size) for name, size in sizes.items()}
        temperature = {"log_alpha": torch.tensor([math.log(config.initial_temperature)])}
        super().__init__(layers, config.precision, ("d1",), temperature, device)

    def forward(self, obs: Tensor, tape: Tape | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, (B, da) each."""
        x = obs[None]
        x0 = self.dense("d0", x).relu_().to(self.type_of("d1"))
        x1 = self.dense("d1", x0).relu_().float()
        mean, log_std = self.dense("out", x1)[0].chunk(2, -1)
        if tape is not None:
            tape |= {"x": x, "x0": x0, "x1": x1, "inside": (log_std >= LOG_STD_RANGE[0]) & (log_std <= LOG_STD_RANGE[1])}
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def sample(self, obs: Tensor, noise: Tensor, tape: Tape | None = None) -> tuple[Tensor, Tensor]:
        """Actions (B, da) in (-1, 1) and log pi (B,), for obs (B, do) and standard normal noise (B, da)."""
        mean, log_std = self(obs, tape)
        shift = log_std.exp() * noise
        before = mean + shift
        actions = torch.tanh(before)
        # log N = -noise^2 / 2 - log sigma - log(2 pi) / 2, and log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which does
        # not lose its digits for large u; together 2 (u + softplus(-2 u) - log sigma / 2 - noise^2 / 4) and constants.
        terms = F.softplus(before * -2).add_(before).sub_(log_std, alpha=0.5).addcmul_(noise, noise, value=-0.25)
        if tape is not None:
            tape |= {"shift": shift, "actions": actions}
        constant = noise.shape[1] * (0.5 * math.log(2 * math.pi) + 2 * math.log(2))
        return actions, terms.sum(-1).mul_(2).sub_(constant)

    def backward(self, of_actions: Tensor, of_log_prob: Tensor, tape: Tape, rows: slice = ALL) -> None:
        """The layers' gradients from dL/da (B, da) and dL/dlog pi, the same for every row, of what `sample` left on the tape.

        rows: which of the tape's these are; the loss does not depend on the others.
        With a = tanh(u) and u = mu + sigma noise: da/du = 1 - a^2, dlog pi/du = 2 a, dlog pi/dlog sigma = 2 a sigma noise - 1.
        """
        actions, shift, inside = (tape[name][rows] for name in ("actions", "shift", "inside"))
        x, x0, x1 = (tape[name][:, rows] for name in ("x", "x0", "x1"))
        of_mean = of_actions * (1 - actions.square()) + of_log_prob * 2 * actions
        of_log_std = (of_mean * shift - of_log_prob) * inside
        g = self.dense_backward("out", torch.cat([of_mean, of_log_std], -1)[None], x1, learn=True)
        assert g is not None
        g = self.dense_backward("d1", relu_backward_(g, x1).to(self.type_of("d1")), x0, learn=True)
        assert g is not None
        self.dense_backward("d0", relu_backward_(g, x0).float(), x, learn=True, inputs=False)


class CIR:
    """The agent: networks, optimisers and the update.  `modules`, `optimizers` and `noise` are all that it remembers."""

    def __init__(self, config: CIRConfig, obs_dim: int, action_dim: int, seed: int, device: torch.device | str = "cpu") -> None:
        switches = {"critic": CRITICS, "norm": NORMS, "actor_q": ACTOR_Q, "alpha_loss": ALPHA_LOSSES, "precision": PRECISIONS}
        for name, options in switches.items():
            if (value := getattr(config, name)) not in options:
                raise RoboprefError(f"policy.{name}={value}: one of {', '.join(options)}.{nearest(value, options)}")
        self.config = config
        self.action_dim, self.target_entropy = action_dim, config.target_entropy * action_dim
        seeds = [CRITIC_HEADS * seed + head for head in range(CRITIC_HEADS)]

        def critics(learns: bool) -> Critics:
            kind = TwinMLP if config.critic == "mlp" else ConstrainedCritics
            return kind(member_rngs(seeds, "critics"), obs_dim, action_dim, config, device, learns)

        self.actor = SquashedGaussian(member_rngs([seed], "actor"), obs_dim, action_dim, config, device)
        self.critic, self.target = critics(learns=True), critics(learns=False)
        self.normaliser = RunningNormaliser(obs_dim).to(device)
        self.noise = torch.Generator(device).manual_seed(seed)
        self.modules: dict[str, nn.Module] = {"actor": self.actor, "critic": self.critic, "target": self.target}
        if config.standardise:
            self.modules["normaliser"] = self.normaliser
        graphed = config.cuda_graph and torch.device(device).type == "cuda"
        self.optimizers = {name: adam(self.modules[name], config.learning_rate, graphed) for name in ("actor", "critic")}

    @torch.no_grad()
    def act(self, obs: np.ndarray, deterministic: bool = False) -> np.ndarray:
        """An action (da,) for one observation (do,): drawn, or the mean, squashed."""
        row = torch.from_numpy(np.asarray(obs, np.float32))[None].to(self.noise.device)
        mean, log_std = self.actor(self.see(row))
        before = mean if deterministic else torch.addcmul(mean, log_std.exp(), self.draw(1, self.action_dim))
        return torch.tanh(before)[0].cpu().numpy()

    def observe(self, obs: np.ndarray) -> None:
        """One more observation (do,) of those that what the networks see is standardised by."""
        self.normaliser.add(torch.from_numpy(np.asarray(obs, np.float64)).to(self.noise.device))

    def see(self, obs: Tensor) -> Tensor:
        """Observations (B, do) as the networks see them."""
        return self.normaliser(obs) if self.config.standardise else obs

    def draw(self, count: int, action_dim: int) -> Tensor:
        """Standard normal noise (count, action_dim) from the agent's own generator."""
        return torch.randn(count, action_dim, generator=self.noise, device=self.noise.device)

    @torch.no_grad()
    def update(self, batch: Experience) -> dict[str, Tensor]:
        """One step of critics, targets, actor and temperature on one minibatch; metrics by name."""
        config, (count, action_dim) = self.config, batch.actions.shape
        batch = batch._replace(obs=self.see(batch.obs), next_obs=self.see(batch.next_obs))
        alpha = self.actor.weights["log_alpha"].exp()
        # Both draws of this step are from the actor as it is now, so they are one pass.
        tape: Tape = {}
        both = self.actor.sample(torch.cat([batch.next_obs, batch.obs]), self.draw(2 * count, action_dim), tape)
        (next_actions, actions), (next_log_prob, log_prob) = (values.split(count) for values in both)
        value = convex_q(self.target(batch.next_obs, next_actions), config.low_share) - alpha * next_log_prob
        target = torch.addcmul(batch.rewards, 1 - batch.terminated, value, value=config.discount)
        q, critic_loss = self.critic.regress(batch.obs, batch.actions, target)
        adam_step(self.optimizers["critic"])
        self.target.follow(self.critic, config.polyak)

        q_pi, slope = self.critic.climb(batch.obs, actions, config.actor_q)
        # L = mean_B (alpha log pi - Q) + alpha (entropy - target entropy), the latter for the temperature alone
        self.actor.backward(slope / -count, alpha / count, tape, slice(count, None))
        entropy = -log_prob.mean()
        surplus = entropy - self.target_entropy
        self.actor.gradients["log_alpha"].copy_(surplus * alpha if config.alpha_loss == "alpha" else surplus)
        adam_step(self.optimizers["actor"])
        self.actor.refresh()
        actor_loss = (alpha * log_prob - q_pi).mean()
        return {"critic": critic_loss, "actor": actor_loss, "q": q.mean(), "entropy": entropy, "alpha": alpha[0]}
