"""Policies: updates a second of P-IQL and CPL, five seeds in one batched program, against five programs one after the other.

The plain side is both algorithms as one writes them down: eager PyTorch, a network at a time, a seed at a time, torch's Adam
and dropout.  It takes the same losses of batches of the same size (a test compares one update), draws them in the same way, and
runs in the same process, by turns.  Either side has the number of threads that suits it better.  Sizes are those of the paper
(configs/policy) and of scale=quick; data are noise, which costs what real data cost.

An update of an algorithm is the average over its schedule: P-IQL has steps of the reward and of IQL, CPL of cloning and of
preferences.  Rates count seeds: updates x seeds / second.  The ratio that counts is that of scale=quick, sizes made for a
processor.  At the paper's, made for a GPU, matrix products that both sides must do take most of the time of either.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.pipeline import PipelineConfig
from robopref.configs.policy import CPLConfig, PIQLConfig
from robopref.policies.cpl import CPL
from robopref.policies.iql import PIQL, cosine
from robopref.policies.replay import Pairs, Transitions, stack_episodes, stack_pairs
from robopref.preference.members import member_rngs

SEEDS = (0, 1, 2, 3, 4)
THREADS = (1, 2)
ROUNDS = 5
TURN_S = 0.1  # a phase is repeated for at least as long in its turn
OBS, ACTION = 39, 4
EPISODES, STEPS, SEGMENT = 100, 150, 50

Phase = Callable[[int], object]  # update number -> one update of all seeds


class PlainPIQL:
    """One seed of P-IQL."""

    def __init__(self, config: PIQLConfig, data: Transitions, pairs: Pairs, seed: int) -> None:
        self.config, self.data, self.pairs, self.rewards = config, data, pairs, data.rewards
        (self.rng,) = member_rngs([seed], "training")
        torch.manual_seed(seed)
        obs, action = data.dims
        self.actor = nn.Sequential(plain_mlp([obs, *config.hidden, action], config.dropout), nn.Tanh())
        self.value = plain_mlp([obs, *config.hidden, 1])
        self.critics = nn.ModuleList(plain_mlp([obs + action, *config.hidden, 1]) for _ in range(2))
        self.targets = copy.deepcopy(self.critics)
        self.reward = plain_mlp([obs + action, *config.hidden, 1])
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), lr=config.learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=config.learning_rate)
        self.reward_optimizer = torch.optim.Adam(self.reward.parameters(), lr=config.reward_learning_rate)

    def update_reward(self) -> Tensor:
        """One Bradley-Terry step; the loss."""
        batch = self.pairs.sample([self.rng], self.config.pairs, self.config.segment_steps)
        scores = []
        for numbers, weight in ((batch.a[0], batch.weight_a[0]), (batch.b[0], batch.weight_b[0])):
            obs, actions = self.data.state_action(numbers)
            rewards = self.reward(torch.cat([obs, actions], -1)).squeeze(-1)
            scores.append((weight * rewards).sum(-1))
        loss = F.binary_cross_entropy_with_logits(scores[1] - scores[0], batch.label[0])
        return plain_step(self.reward_optimizer, loss)

    def update(self, step: int) -> dict[str, Tensor]:
        """One IQL step: V, actor, critics, targets; the losses."""
        config = self.config
        numbers = torch.from_numpy(self.rng.integers(len(self.data), size=config.batch))
        rows = self.data.rows[numbers]
        obs, actions, next_obs = self.data.obs[rows], self.data.actions[numbers], self.data.obs[rows + 1]
        both = torch.cat([obs, actions], -1)

        with torch.no_grad():
            q = torch.min(*[target(both).squeeze(-1) for target in self.targets])
        error = q - self.value(obs).squeeze(-1)
        weight = torch.abs(config.expectile - (error < 0).float())
        value_loss = plain_step(self.value_optimizer, (weight * error**2).mean())

        with torch.no_grad():
            advantage = q - self.value(obs).squeeze(-1)
            next_value = self.value(next_obs).squeeze(-1)
            weight = torch.exp(advantage / config.temperature).clamp(max=config.clip)
        for group in self.actor_optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine(step / config.steps)
        actor_loss = plain_step(self.actor_optimizer, (weight * ((self.actor(obs) - actions) ** 2).sum(-1)).mean())

        target = self.rewards[numbers] + config.discount * next_value
        losses = [F.mse_loss(critic(both).squeeze(-1), target) for critic in self.critics]
        critic_loss = plain_step(self.critic_optimizer, losses[0] + losses[1])
        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.mul_(1 - config.polyak).add_(fast, alpha=config.polyak)
        return {"value": value_loss, "actor": actor_loss, "critic": critic_loss}


class PlainCPL:
    """One seed of CPL."""

    def __init__(self, config: CPLConfig, data: Transitions, pairs: Pairs, seed: int) -> None:
        self.config, self.data, self.pairs = config, data, pairs
        self.shown = pairs.transitions() if config.clone_from == "segments" else torch.arange(len(data))
        (self.rng,) = member_rngs([seed], "training")
        torch.manual_seed(seed)
        obs, action = data.dims
        self.actor = nn.Sequential(plain_mlp([obs, *config.hidden, action], config.dropout), nn.Tanh())
        self.clone_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.clone_learning_rate)
        self.prefer_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate)

    def clone(self) -> Tensor:
        """One cloning step; the loss."""
        numbers = self.shown[torch.from_numpy(self.rng.integers(len(self.shown), size=self.config.batch))]
        obs, actions = self.data.state_action(numbers)
        return plain_step(self.clone_optimizer, ((self.actor(obs) - actions) ** 2).sum(-1).mean())

    def prefer(self, step: int) -> Tensor:
        """One preference step; the contrastive loss."""
        config = self.config
        batch = self.pairs.sample([self.rng], config.pairs, config.segment_steps)
        scores, distances = [], []
        for numbers, weight in ((batch.a[0], batch.weight_a[0]), (batch.b[0], batch.weight_b[0])):
            obs, actions = self.data.state_action(numbers)
            distance = ((self.actor(obs) - actions) ** 2).sum(-1)
            scores.append(-config.alpha * (weight * distance).sum(-1))
            distances.append(distance.mean())
        a, b, label = *scores, batch.label[0]
        loss = (label * F.softplus(config.bias * a - b) + (1 - label) * F.softplus(config.bias * b - a)).mean()
        warmup = max(1, round(config.warmup * config.steps))
        for group in self.prefer_optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / warmup)
        cloning = config.clone_weight * (distances[0] + distances[1]) / 2
        plain_step(self.prefer_optimizer, loss + cloning)
        return loss.detach()


def plain_mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """A multi-layer perceptron with ReLU, and dropout after each hidden layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), *([nn.Dropout(dropout)] if dropout > 0 else [])]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def plain_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """One gradient step on `loss`, which comes back."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def run() -> dict[str, float]:
    """Measure; print a table; return {"ratio", "paper"}: the lower ratio of the two algorithms at either size, quick first."""
    quick = to_dataclass(PipelineConfig, compose("pipeline"))
    sizes = {"paper": (PIQLConfig(), CPLConfig()), "quick": (quick.piql, quick.cpl)}
    data, pairs = noise()
    table = Table(title=f"Updates x {len(SEEDS)} seeds a second, observation {OBS}, action {ACTION}")
    for name in ("sizes", "algorithm", "plain", "threads", "batched", "threads", "ratio"):
        table.add_column(name, justify="left" if name in ("sizes", "algorithm") else "right")
    ratios = {}
    for scale, (piql, cpl) in sizes.items():
        for algorithm, phases in (("P-IQL", piql_phases(piql, data, pairs)), ("CPL", cpl_phases(cpl, data, pairs))):
            seconds = measure(phases)
            (plain, plain_threads), (batched, batched_threads) = (best(seconds, phases, side) for side in range(2))
            ratios[scale, algorithm] = batched / plain
            cells = (f"{plain:.1f}", f"{plain_threads}", f"{batched:.1f}", f"{batched_threads}", f"{batched / plain:.2f}")
            table.add_row(scale, algorithm, *cells)
    Console().print(table)
    lower = {scale: round(min(ratio for (of, _), ratio in ratios.items() if of == scale), 2) for scale in sizes}
    return {"ratio": lower["quick"], "paper": lower["paper"]}


def noise() -> tuple[Transitions, Pairs]:
    """Offline data and as many pairs of segments as the paper has, of noise."""
    rng = np.random.default_rng(0)
    episodes = [
        SimpleNamespace(
            observations=rng.normal(size=(STEPS + 1, OBS)),
            actions=rng.uniform(-1, 1, (STEPS, ACTION)),
            rewards=rng.normal(size=STEPS),
        )
        for _ in range(EPISODES)
    ]
    data = stack_episodes(episodes)
    pairs: dict[str, np.ndarray] = {"label": rng.integers(2, size=100).astype(float)}
    for side in "ab":
        start = rng.integers(STEPS - SEGMENT + 1, size=100)
        pairs |= {f"episode_{side}": rng.integers(EPISODES, size=100), f"start_{side}": start, f"stop_{side}": start + SEGMENT}
    return data, stack_pairs(pd.DataFrame(pairs), data.first)


def piql_phases(config: PIQLConfig, data: Transitions, pairs: Pairs) -> list[tuple[int, Phase, Phase]]:
    """(steps of the schedule, plain update of all seeds, batched update) of both phases of P-IQL."""
    plain = [PlainPIQL(config, data, pairs, seed) for seed in SEEDS]
    batched, rngs = PIQL(config, data, pairs, SEEDS), member_rngs(SEEDS, "training")
    return [
        (config.reward_steps, lambda _: [one.update_reward() for one in plain], lambda _: batched.update_reward(rngs)),
        (config.steps, lambda step: [one.update(step) for one in plain], lambda step: batched.iql.update(step, rngs)),
    ]


def cpl_phases(config: CPLConfig, data: Transitions, pairs: Pairs) -> list[tuple[int, Phase, Phase]]:
    """The same of CPL."""
    plain = [PlainCPL(config, data, pairs, seed) for seed in SEEDS]
    batched, rngs = CPL(config, data, pairs, SEEDS), member_rngs(SEEDS, "training")
    return [
        (config.clone_steps, lambda _: [one.clone() for one in plain], lambda _: batched.clone(rngs)),
        (config.steps, lambda step: [one.prefer(step) for one in plain], lambda step: batched.prefer(step, rngs)),
    ]


def measure(phases: Sequence[tuple[int, Phase, Phase]]) -> dict[int, np.ndarray]:
    """Median seconds an update by number of threads: (phases, 2), plain and batched, which take turns."""
    seconds = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        rounds = [[[seconds_each(act) for act in acts] for _, *acts in phases] for _ in range(1 + ROUNDS)]
        seconds[threads] = np.median(rounds[1:], axis=0)  # neither side pays for first calls
    return seconds


def seconds_each(act: Phase) -> float:
    """Seconds of one update."""
    started, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - started < TURN_S:
        act(done)
        done += 1
    return (time.perf_counter() - started) / done


def best(seconds: dict[int, np.ndarray], phases: Sequence[tuple[int, Phase, Phase]], side: int) -> tuple[float, int]:
    """Updates x seeds a second over the whole schedule, and the number of threads that it takes."""
    steps = np.array([count for count, *_ in phases])
    return max((len(SEEDS) * steps.sum() / (steps @ each[:, side]), threads) for threads, each in seconds.items())
