"""Policies: updates a second of P-IQL and CPL, five seeds in one batched program, against one network at a time.

The plain side is both algorithms as one writes them down: eager PyTorch, a network at a time, a seed at a time, torch's Adam
and dropout.  It takes the same losses of batches of the same size (a test compares one update), draws them in the same way, and
runs in the same process, by turns.  Either side has the number of threads that suits it better.  Sizes are those of the paper
(configs/policy) and of scale=quick; data are noise, which costs what real data cost.

"ratio" and "paper" are those of one process each; the plain one has its five seeds in memory as ours has, and takes an update of
each by turns (a seed to its end before the next was no faster beyond 2 %: docs/lab.md).  Who has seeds to train and two cores
starts two processes with one thread each; "fair" and "fair_paper" let the plain side do so, a seed at a time in either process,
with torch's fused Adam, and both processes always busy (five seeds would leave one idle at the end).  Ours may, too, five seeds
in either, or have one process and two threads.

An update of an algorithm is the average over its schedule: P-IQL has steps of the reward and of IQL, CPL of cloning and of
preferences.  Rates count seeds: updates x seeds / second.  The ratio that counts is that of scale=quick, sizes made for a
processor.  At the paper's, made for a GPU, matrix products that both sides must do take most of the time of either.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

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
from robopref.policies.benchmarks.turns import processes
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
_kept: dict[str, list[Phase]] = {}  # of a process that takes turns with another


class PlainPIQL:
    """One seed of P-IQL."""

    def __init__(self, config: PIQLConfig, data: Transitions, pairs: Pairs, seed: int, fused: bool = False) -> None:
        self.config, self.data, self.pairs, self.rewards = config, data, pairs, data.rewards
        (self.rng,) = member_rngs([seed], "training")
        torch.manual_seed(seed)
        obs, action = data.dims
        self.actor = nn.Sequential(plain_mlp([obs, *config.hidden, action], config.dropout), nn.Tanh())
        self.value = plain_mlp([obs, *config.hidden, 1])
        self.critics = nn.ModuleList(plain_mlp([obs + action, *config.hidden, 1]) for _ in range(2))
        self.targets = copy.deepcopy(self.critics)
        self.reward = plain_mlp([obs + action, *config.hidden, 1])
        adam = partial(torch.optim.Adam, fused=fused)
        self.actor_optimizer = adam(self.actor.parameters(), lr=config.learning_rate)
        self.value_optimizer = adam(self.value.parameters(), lr=config.learning_rate)
        self.critic_optimizer = adam(self.critics.parameters(), lr=config.learning_rate)
        self.reward_optimizer = adam(self.reward.parameters(), lr=config.reward_learning_rate)

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

    def __init__(self, config: CPLConfig, data: Transitions, pairs: Pairs, seed: int, fused: bool = False) -> None:
        self.config, self.data, self.pairs = config, data, pairs
        self.shown = pairs.transitions() if config.clone_from == "segments" else torch.arange(len(data))
        (self.rng,) = member_rngs([seed], "training")
        torch.manual_seed(seed)
        obs, action = data.dims
        self.actor = nn.Sequential(plain_mlp([obs, *config.hidden, action], config.dropout), nn.Tanh())
        adam = partial(torch.optim.Adam, fused=fused)
        self.clone_optimizer = adam(self.actor.parameters(), lr=config.clone_learning_rate)
        self.prefer_optimizer = adam(self.actor.parameters(), lr=config.learning_rate)

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
    """Measure; print a table; return {"ratio", "paper", "fair", "fair_paper"}: the lower ratio of the two algorithms at a size.

    "ratio" and "fair" are of scale=quick, "paper" and "fair_paper" of the paper's sizes.
    """
    data, pairs = noise()
    table = Table(title=f"Updates x seeds a second, observation {OBS}, action {ACTION}")
    sides = ("plain, one process", "threads", "five seeds, one process", "threads", "plain, two", "five seeds, two")
    for name in ("sizes", "algorithm", *sides, "ratio", "fair"):
        table.add_column(name, justify="left" if name in ("sizes", "algorithm") else "right")
    ratios: dict[str, list[tuple[float, float]]] = {}
    with processes(2) as both:
        for scale, configs in sizes().items():
            for config in configs:
                steps = [count for count, _ in batched_phases(config, data, pairs)]
                acts = [plain_phases(config, data, pairs, SEEDS), batched_phases(config, data, pairs)]
                seconds = measure([[act for _, act in phases] for phases in acts])
                (plain, plain_threads), (batched, batched_threads) = (best(seconds, steps, side) for side in range(2))
                plain_two, batched_two = measure_two(both, config, steps)
                ratios.setdefault(scale, []).append((batched / plain, max(batched, batched_two) / max(plain, plain_two)))
                cells = (f"{plain:.1f}", f"{plain_threads}", f"{batched:.1f}", f"{batched_threads}")
                two = (f"{plain_two:.1f}", f"{batched_two:.1f}", *(f"{ratio:.2f}" for ratio in ratios[scale][-1]))
                table.add_row(scale, "P-IQL" if isinstance(config, PIQLConfig) else "CPL", *cells, *two)
    Console().print(table)
    lower = {scale: [round(min(column), 2) for column in zip(*rows, strict=True)] for scale, rows in ratios.items()}
    return {"ratio": lower["quick"][0], "paper": lower["paper"][0], "fair": lower["quick"][1], "fair_paper": lower["paper"][1]}


def sizes() -> dict[str, tuple[PIQLConfig, CPLConfig]]:
    """The settings of both algorithms at either size."""
    quick = to_dataclass(PipelineConfig, compose("pipeline"))
    return {"paper": (PIQLConfig(), CPLConfig()), "quick": (quick.piql, quick.cpl)}


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


def plain_phases(
    config: PIQLConfig | CPLConfig, data: Transitions, pairs: Pairs, seeds: Sequence[int], fused: bool = False
) -> list[tuple[int, Phase]]:
    """(steps of the schedule, plain update of these seeds) of both phases."""
    if isinstance(config, PIQLConfig):
        piql = [PlainPIQL(config, data, pairs, seed, fused) for seed in seeds]
        return [
            (config.reward_steps, lambda _: [one.update_reward() for one in piql]),
            (config.steps, lambda step: [one.update(step) for one in piql]),
        ]
    cpl = [PlainCPL(config, data, pairs, seed, fused) for seed in seeds]
    return [
        (config.clone_steps, lambda _: [one.clone() for one in cpl]),
        (config.steps, lambda step: [one.prefer(step) for one in cpl]),
    ]


def batched_phases(config: PIQLConfig | CPLConfig, data: Transitions, pairs: Pairs) -> list[tuple[int, Phase]]:
    """The same of all seeds in one program."""
    rngs = member_rngs(SEEDS, "training")
    if isinstance(config, PIQLConfig):
        piql = PIQL(config, data, pairs, SEEDS)
        return [
            (config.reward_steps, lambda _: piql.update_reward(rngs)),
            (config.steps, lambda step: piql.iql.update(step, rngs)),
        ]
    cpl = CPL(config, data, pairs, SEEDS)
    return [(config.clone_steps, lambda _: cpl.clone(rngs)), (config.steps, lambda step: cpl.prefer(step, rngs))]


def measure(sides: Sequence[Sequence[Phase]]) -> dict[int, np.ndarray]:
    """Median seconds an update by number of threads: (phases, sides); the sides take turns in each phase."""
    seconds = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        rounds = [[[seconds_each(act, TURN_S) for act in acts] for acts in zip(*sides, strict=True)] for _ in range(1 + ROUNDS)]
        seconds[threads] = np.median(rounds[1:], axis=0)  # neither side pays for first calls
    return seconds


def measure_two(both: Callable[..., list[Any]], config: PIQLConfig | CPLConfig, steps: Sequence[int]) -> tuple[float, float]:
    """Updates x seeds a second, plain and batched, of two processes at once, which `both` calls; the median of the rounds."""
    rates: list[list[float]] = []
    for _ in range(1 + ROUNDS):
        rates.append([])
        for side, seeds in (("plain", 1), ("batched", len(SEEDS))):
            each = np.array(both(seconds_alone, config, side, TURN_S))  # (processes, phases)
            rates[-1].append(float((seeds * np.sum(steps) / (each @ steps)).sum()))
    plain, batched = np.median(rates[1:], axis=0)
    return float(plain), float(batched)


def seconds_alone(config: PIQLConfig | CPLConfig, side: str, turn: float) -> list[float]:
    """Seconds of one update in each phase, in a process with one thread: one seed of the plain side, or all in one program."""
    torch.set_num_threads(1)
    key = f"{side} {config}"
    if key not in _kept:
        data, pairs = noise()
        made = (
            plain_phases(config, data, pairs, SEEDS[:1], fused=True) if side == "plain" else batched_phases(config, data, pairs)
        )
        _kept[key] = [act for _, act in made]
    return [seconds_each(act, turn) for act in _kept[key]]


def seconds_each(act: Phase, turn: float) -> float:
    """Seconds of one update, over as many as fill a turn of `turn` seconds."""
    started, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - started < turn:
        act(done)
        done += 1
    return (time.perf_counter() - started) / done


def best(seconds: dict[int, np.ndarray], steps: Sequence[int], side: int) -> tuple[float, int]:
    """Updates x seeds a second over the whole schedule, and the number of threads that it takes."""
    return max((len(SEEDS) * np.sum(steps) / (np.array(steps) @ each[:, side]), threads) for threads, each in seconds.items())
