"""GTR (reconstruction from the abstract of B. Liu et al., arXiv 2606.03382): PPO whose trust region lets go of what moved far.

The abstract names a Gaussian kernel that makes the divergence penalty bounded and non-monotonic, and a mixture of recent policies
as its anchor; the equations below are ours.  With D_k(s) = KL(pi_k(.|s) || pi(.|s)) / da for each anchor pi_k, earlier iterates,

    P = E_s[ sum_k w_k sigma^2 (1 - exp(-D_k / sigma^2)) ],  L = L_clip + beta P + c_v L_V - c_e H.

So P < sigma^2, and its gradient is that of a KL penalty times the kernel exp(-D_k / sigma^2): with d = sqrt(2 D) it pulls like
d exp(-d^2 / 2 sigma^2), hardest at d = sigma, and lets go beyond.  PPO (Schulman et al. 2017), PPO with a lagged KL penalty, and
C-CHAIN's mean squared change of the mean action are switches, so that a comparison changes one thing.

What the abstract leaves open is a switch too: `distance` (the divergence, or what the drawn action alone says of it), `anchor`
(every earlier policy a kernel of its own, one Gaussian with their moments, or a running mean of weights), `adapt` (sigma follows
the distances that are met) and `lenience` (the more advantage, the sooner it lets go).

All S members (seeds) learn in one program.

Axes: S members, N rows an iteration, B rows of a minibatch, K anchors, do and da numbers in an observation and an action, o
outputs of an actor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.policy import GTRConfig
from robopref.policies.actor_critics import ActorCritics, Adam
from robopref.policies.distributions import Categorical, Distribution, Gaussian
from robopref.preference.members import member_rngs

PENALTIES = ("gaussian", "kl", "mean", "none")
ACTIVATIONS = ("tanh", "relu")
ACTORS = ("gaussian", "categorical")
DISTANCES = ("kl", "log_ratio")
ANCHORS = ("mixture", "moments", "mean")
MOST_ADVANTAGE = 2.0  # in deviations, that `lenience` looks at


class Rollout(NamedTuple):
    """What an iteration learns from, all float32."""

    obs: np.ndarray  # (S, N, do), as the networks see them
    actions: np.ndarray  # (S, N, da), drawn; of a categorical actor the numbers of the bins
    log_prob: np.ndarray  # (S, N), when they were drawn
    advantages: np.ndarray  # (S, N)
    returns: np.ndarray  # (S, N), what values are regressed to


def standardised(x: np.ndarray) -> np.ndarray:
    """x (S, B) with mean 0 and deviation 1 in every row; numpy's own `mean` and `std` cost ten times as much at this size."""
    count = x.shape[1]
    centred = x - np.add.reduce(x, 1, keepdims=True) / count
    deviation = np.sqrt(np.einsum("sb,sb->s", centred, centred) / max(1, count - 1))
    return centred / (deviation + 1e-8)[:, None]


def clipped(ratio: np.ndarray, advantages: np.ndarray, clip: float) -> tuple[np.ndarray, np.ndarray]:
    """L_clip = -mean_B min(r A, clip(r) A), (S,), for r = pi / pi_old and A (S, B), and dL/dlog pi (S, B)."""
    gain, held = ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages
    slope = gain * (gain <= held) * (-1 / gain.shape[1])
    return -np.minimum(gain, held).mean(1), slope


def gaussian_kernel(distance: np.ndarray, mixture: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P = mean_B sum_k w_k sigma^2 (1 - exp(-D_k / sigma^2)), (S,), and dP/dD (S, B, K).

    distance: D (S, B, K); mixture: w (K,); width: sigma^2, of members (S, 1, 1) or of rows (S, B, 1).
    """
    kernel = np.exp(-distance / width)
    return ((width * (1 - kernel)) @ mixture).mean(1), kernel * (mixture / distance.shape[1])


def lagged_kl(distance: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mean_B sum_k w_k D_k, (S,), and its gradient (S, B, K): what GTR's penalty becomes for sigma to infinity."""
    return (distance @ mixture).mean(1), np.broadcast_to(mixture / distance.shape[1], distance.shape)


class GTR:
    """The agent: networks, optimiser, anchors and the update."""

    def __init__(self, config: GTRConfig, obs_dim: int, action_dim: int, seeds: Sequence[int]) -> None:
        switches = {"penalty": PENALTIES, "activation": ACTIVATIONS, "actor": ACTORS, "distance": DISTANCES, "anchor": ANCHORS}
        for name, options in switches.items():
            if (value := getattr(config, name)) not in options:
                raise RoboprefError(f"policy.{name}={value}: one of {', '.join(options)}.{nearest(value, options)}")
        for name in ("sigma", "beta", "adapt", "lenience"):
            if not 0 <= getattr(config, name) < np.inf or (name == "sigma" and config.sigma == 0):
                raise UsageError(f"policy.{name}={getattr(config, name)}: a number from 0 on, and sigma above it")
        self.config = config
        self.policy: type[Distribution] = Gaussian if config.actor == "gaussian" else Categorical
        outputs = action_dim * (config.bins if config.actor == "categorical" else 1)
        self.net = ActorCritics(seeds, obs_dim, outputs, action_dim, config)
        self.optimizer = Adam(self.net.values.shape, config.learning_rate)
        self.anchors: list[np.ndarray] = []
        """Actors' rows (S, P) of `net.values` as they were when earlier iterations began, the newest first."""
        self.sigma = np.full((len(seeds), 1, 1), config.sigma, np.float32)
        self.rngs = member_rngs(seeds, "minibatches")

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """What actions are drawn from, (*shape, da) float32."""
        action_dim = self.net.log_std.shape[-1]
        if self.config.actor == "gaussian":
            return rng.standard_normal((*shape, action_dim), np.float32)
        return rng.random((*shape, action_dim), np.float32)

    def acted(self, actions: np.ndarray) -> np.ndarray:
        """Drawn actions as an environment takes them, in [-1, 1]: cut off, or the bins' values, evenly spread."""
        if self.config.actor == "gaussian":
            return actions.clip(-1, 1)
        return actions * np.float32(2 / (self.config.bins - 1)) - 1

    @property
    def penalised(self) -> bool:
        """Whether the loss has a penalty at all."""
        return self.config.penalty != "none" and self.config.beta > 0

    def mixture(self) -> np.ndarray:
        """w (K,) of the anchors there are, in proportion to anchor_decay^age."""
        weights = self.config.anchor_decay ** np.arange(len(self.anchors), dtype=np.float32)
        return weights / weights.sum()

    def references(self, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What anchors would do at obs (S, N, do): outputs (S, N, K, o), log_std (S, 1 or N, K, da), and their weights (K,)."""
        told = [self.net.outputs_of(anchor, obs) for anchor in self.anchors]
        outputs, log_std = (np.stack(parts, 2) for parts in zip(*told, strict=True))
        if self.config.anchor != "moments":
            return outputs, log_std, self.mixture()
        return *self.policy.blend(outputs, log_std, self.mixture()), np.ones(1, np.float32)

    def remember(self, before: np.ndarray) -> None:
        """Make the actors (S, P) with which an iteration began an anchor."""
        if self.config.anchor == "mean":  # exponential, of weights
            decay = np.float32(self.config.anchor_decay)
            self.anchors = [decay * self.anchors[0] + (1 - decay) * before] if self.anchors else [before]
        else:
            self.anchors = [before, *self.anchors][: self.config.anchors]

    def learn(self, rollout: Rollout) -> dict[str, np.ndarray]:
        """One iteration; metrics (S,), means over the last minibatches of its epochs."""
        config, (members, count) = self.config, rollout.log_prob.shape
        columns = [part.reshape(members, count, -1) for part in rollout]
        before, anchors = self.net.values[: self.net.members].copy(), None
        if self.penalised and self.anchors:  # what they would do is asked once an iteration
            anchors = self.references(rollout.obs)
            columns += [part.reshape(members, count, -1) for part in anchors[:2] if part.shape[1] == count]
        rows, ends = np.concatenate(columns, -1), np.cumsum([part.shape[-1] for part in columns])[:-1]
        told = []
        for _ in range(config.epochs):
            order = np.stack([rng.permutation(count) for rng in self.rngs])
            mixed = rows[np.arange(members)[:, None], order]
            for first in range(0, count, config.minibatch):
                parts = np.split(mixed[:, first : first + config.minibatch], ends, -1)
                of_anchors = (parts[5], parts[6] if len(parts) > 6 else anchors[1], anchors[2]) if anchors else None
                metrics = self.step(Rollout(*parts[:5]), of_anchors)
            told.append(metrics)
        iteration = self.optimizer.count // (config.epochs * -(-count // config.minibatch))
        if self.penalised and (iteration - 1) % config.anchor_every == 0:
            self.remember(before)
        metrics = {name: np.mean([metrics[name] for metrics in told], 0) for name in told[0]}
        if config.adapt > 0 and "distance" in metrics:
            self.sigma = np.maximum(config.adapt * metrics["distance"], 1e-3).astype(np.float32).reshape(self.sigma.shape)
        return metrics

    def step(self, batch: Rollout, anchors: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """One step on a minibatch, (S, B, ...) each part, single numbers too; metrics (S,).

        anchors: their outputs (S, B, K, o) and log_std (S, 1 or B, K, da), or these with K last parts in one, and weights (K,).
        """
        config, net = self.config, self.net
        tape: list[np.ndarray] = []
        outputs, values = net.both(batch.obs, tape)
        policy = self.policy(outputs, net.log_std)
        log_prob = policy.log_prob(batch.actions)
        advantages = standardised(batch.advantages[..., 0])
        loss, slope = clipped(np.exp(log_prob - batch.log_prob[..., 0]), advantages, config.clip)
        policy.log_prob_backward(slope)
        metrics = {"policy": loss, "entropy": policy.entropy(config.entropy)}
        if anchors is not None:
            metrics |= self.penalise(policy, outputs, *anchors, batch.actions, advantages)
        error = values - batch.returns[..., 0]
        net.backward(policy.of_outputs, policy.of_log_std, error * (2 * config.value_weight / error.shape[1]), tape)
        net.clip(config.max_norm)
        self.optimizer.step(net.values, net.gradient)
        return metrics | {"value": np.square(error).mean(1), "clipped": (slope == 0).mean(1)}

    def penalise(
        self,
        policy: Distribution,
        outputs: np.ndarray,
        outputs_k: np.ndarray,
        log_std_k: np.ndarray,
        mixture: np.ndarray,
        actions: np.ndarray,
        advantages: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Add the gradient of beta times the penalty; metrics.  Of anchors see `step`; advantages (S, B) are standardised."""
        config = self.config
        outputs_k, log_std_k = (part.reshape(*part.shape[:2], len(mixture), -1) for part in (outputs_k, log_std_k))
        if config.penalty == "mean":  # C-CHAIN's: mean_B sum_k w_k mean_o (outputs - outputs_k)^2
            change = outputs[:, :, None] - outputs_k
            policy.of_outputs += (change * mixture[:, None]).sum(2) * (2 * config.beta / outputs[0].size)
            return {"penalty": (np.square(change).mean(-1) @ mixture).mean(1)}
        size = actions.shape[-1]
        if config.distance == "kl":
            distance = policy.divergence(outputs_k, log_std_k)
        else:  # D_k = (log pi - log pi_k)^2 / 2 da at the drawn action: the KL's second order, with one sample
            then = [self.policy(outputs_k[:, :, k], log_std_k[:, :, k]).log_prob(actions) for k in range(len(mixture))]
            ratio = policy.log_prob(actions)[..., None] - np.stack(then, -1)
            distance = np.square(ratio) / (2 * size)
        width = np.square(self.sigma)
        if config.lenience > 0:
            width = width * np.exp(-config.lenience * advantages.clip(-MOST_ADVANTAGE, MOST_ADVANTAGE))[..., None]
        loss, pull = gaussian_kernel(distance, mixture, width) if config.penalty == "gaussian" else lagged_kl(distance, mixture)
        if config.distance == "kl":
            policy.divergence_backward(pull * np.float32(config.beta))
        else:
            policy.log_prob_backward((pull * ratio).sum(-1) * np.float32(config.beta / size))
        metrics = {"penalty": loss, "distance": np.sqrt(2 * distance.clip(0)).mean((1, 2))}
        if config.penalty == "gaussian":
            metrics["kernel"] = (pull / mixture).sum((1, 2)) / len(mixture)
            metrics["released"] = (2 * distance > width).mean((1, 2))  # beyond the peak of the force
            metrics["sigma"] = self.sigma.reshape(-1)
        return metrics
