"""IQL on D4RL-style data: gradient steps a second, against the widely used layout of IQL in one PyTorch file.

The plain side is one seed of the algorithm as such files have it: eager, a network at a time, a replay buffer of tensors from
which numpy draws, torch's own Adam and learning-rate schedule, a normal distribution's log-density, losses fetched as numbers.
It is written here from the equations, at the sizes of IQL's paper: two layers of 256, batches of 256, observations and actions
of HalfCheetah's widths, noise as data, which costs what real data cost.  It takes the step of the paper's own code, as ours does
(a test compares them); such files often take values and advantages from before the value's step, a pass of 256 rows less.

Ours is what `robopref train policy=iql_d4rl` runs: one seed, and five in one program.  Rates count seeds: seeds x steps / second.
"ratio" is that of five seeds in the precision that the command's `precision: auto` takes on this processor, which "precision"
names: hidden layers in mixed precision (policies/mixed.py) where it has instructions for bfloat16 products, else float32, and the
mixed one is left out, since its products would be emulated.  "ratio_float32" is that of five seeds in float32, "ratio_one_seed"
the first with one seed.  The plain side is float32 throughout.  All sides take turns, each in a process of its own, and each has
the number of threads that suits it better.

"fair" lets both sides use both cores, in float32: the plain one trains a seed in either of two processes with one thread each,
with torch's fused Adam and both processes always busy; ours five seeds in either, or five in one process with two threads.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.distributions import Normal

from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import IQLConfig
from robopref.policies.benchmarks.downstream import plain_mlp
from robopref.policies.benchmarks.turns import Steps, measure
from robopref.policies.iql import IQL
from robopref.policies.mixed import is_mixed
from robopref.policies.networks import LOG_STD_RANGE
from robopref.policies.online import prepare_processor
from robopref.policies.replay import Transitions, stack_episodes
from robopref.preference.members import member_rngs

SEEDS = (0, 1, 2, 3, 4)
THREADS = (1, 2)
ROUNDS = 5
TURN_S = 1.5
OBS, ACTION = 17, 6  # HalfCheetah's
EPISODES, STEPS = 100, 1000


class PlainBuffer:
    """All transitions as tensors, row by row."""

    def __init__(self, data: Transitions) -> None:
        terminals = torch.zeros(len(data)) if data.terminals is None else data.terminals
        self.columns = [data.obs[data.rows], data.actions, data.rewards, data.obs[data.rows + 1], terminals]

    def sample(self, size: int) -> list[Tensor]:
        """Observations, actions, rewards, next observations and ends of `size` transitions."""
        chosen = np.random.randint(0, len(self.columns[0]), size=size)
        return [column[chosen] for column in self.columns]


class PlainIQL:
    """One seed of IQL."""

    def __init__(self, config: IQLConfig, data: Transitions, fused: bool = False) -> None:
        self.config, self.buffer = config, PlainBuffer(data)
        adam = partial(torch.optim.Adam, lr=config.learning_rate, fused=fused)
        obs, action = data.dims
        self.actor = nn.Sequential(plain_mlp([obs, *config.hidden, action]), nn.Tanh())
        self.log_std = nn.Parameter(torch.zeros(action))
        self.value = plain_mlp([obs, *config.hidden, 1])
        self.critics = nn.ModuleList(plain_mlp([obs + action, *config.hidden, 1]) for _ in range(2))
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.value_optimizer = adam(self.value.parameters())
        self.critic_optimizer = adam(self.critics.parameters())
        self.actor_optimizer = adam([*self.actor.parameters(), self.log_std])
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optimizer, config.steps)

    def train(self, batch: list[Tensor]) -> dict[str, float]:
        """One step of value, actor, critics and targets; the losses."""
        config, log = self.config, {}
        obs, actions, rewards, next_obs, ends = batch
        with torch.no_grad():
            both = torch.cat([obs, actions], 1)
            target_q = torch.min(*[target(both).squeeze(-1) for target in self.targets])
        advantage = target_q - self.value(obs).squeeze(-1)
        loss = torch.mean(torch.abs(config.expectile - (advantage < 0).float()) * advantage**2)
        log["value"] = loss.item()
        self.value_optimizer.zero_grad()
        loss.backward()
        self.value_optimizer.step()

        with torch.no_grad():
            weight = torch.exp((target_q - self.value(obs).squeeze(-1)) / config.temperature).clamp(max=config.clip)
        policy = Normal(self.actor(obs), torch.exp(self.log_std.clamp(*LOG_STD_RANGE)))
        loss = torch.mean(weight * -policy.log_prob(actions).sum(-1))
        log["actor"] = loss.item()
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        self.schedule.step()

        with torch.no_grad():
            target = rewards + (1.0 - ends) * config.discount * self.value(next_obs).squeeze(-1)
        both = torch.cat([obs, actions], 1)
        losses = [F.mse_loss(critic(both).squeeze(-1), target) for critic in self.critics]
        loss = losses[0] + losses[1]
        log["critic"] = loss.item()
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            slow.data.copy_((1 - config.polyak) * slow.data + config.polyak * fast.data)
        return log


def run() -> dict[str, float | str]:
    """Measure; print a table; return {"ratio", "ratio_float32", "ratio_one_seed", "fair", "precision"}: see above."""
    config = to_dataclass(IQLConfig, compose("train", ["policy=iql_d4rl"])["policy"])
    taken = "mixed" if is_mixed("auto", torch.device("cpu")) else "float32"
    precisions = list(dict.fromkeys(("float32", taken)))
    sides = {"IQL in one plain file, one seed": (1, partial(plain, config))}
    for name, chosen in (("one seed", SEEDS[:1]), ("five seeds", SEEDS)):
        sides |= {f"{name}, {one}": (len(chosen), partial(ours, replace(config, precision=one), chosen)) for one in precisions}
    two = {
        "two plain processes": (1, partial(plain, config, fused=True)),
        "two of five seeds, float32": (len(SEEDS), partial(ours, replace(config, precision="float32"), SEEDS)),
    }
    sides |= two
    rates = measure({name: make for name, (_, make) in sides.items()}, THREADS, ROUNDS, TURN_S, twice=list(two))
    table = Table(title=f"Seeds x gradient steps a second of IQL, {list(config.hidden)}, batch {config.batch}")
    table.add_column()
    for name in (*(f"{threads} thread{'s' * (threads > 1)}" for threads in THREADS), "best of either"):
        table.add_column(name, justify="right")
    best = {name: seeds * max(rates[name].values()) for name, (seeds, _) in sides.items()}
    peer = next(iter(best.values()))
    for name, (seeds, _) in sides.items():
        cells = (f"{seeds * rates[name][threads]:.1f}" if threads in rates[name] else "-" for threads in THREADS)
        table.add_row(name, *cells, f"{best[name] / peer:.2f}")
    Console().print(table)
    names = {"ratio": f"five seeds, {taken}", "ratio_float32": "five seeds, float32", "ratio_one_seed": f"one seed, {taken}"}
    fair = max(best["two of five seeds, float32"], best["five seeds, float32"]) / best["two plain processes"]
    ratios: dict[str, float | str] = {measure: round(best[name] / peer, 2) for measure, name in names.items()}
    return ratios | {"fair": round(fair, 2), "precision": "bfloat16 products" if taken == "mixed" else taken}


def noise() -> Transitions:
    """Offline data of noise, no end of an episode among them for good."""
    rng = np.random.default_rng(0)
    episodes = [
        SimpleNamespace(
            observations=rng.normal(size=(STEPS + 1, OBS)),
            actions=rng.uniform(-1, 1, (STEPS, ACTION)),
            rewards=rng.normal(size=STEPS),
        )
        for _ in range(EPISODES)
    ]
    return stack_episodes(episodes, normalise=False)


def plain(config: IQLConfig, fused: bool = False) -> Steps:
    """Gradient steps of the plain side."""
    np.random.seed(0)
    torch.manual_seed(0)
    learner = PlainIQL(config, noise(), fused)
    return lambda count: [learner.train(learner.buffer.sample(config.batch)) for _ in range(count)]


def ours(config: IQLConfig, seeds: tuple[int, ...]) -> Steps:
    """Gradient steps of this package's learner, as `robopref train` prepares it."""
    prepare_processor(1)
    learner, rngs = IQL(config, noise(), seeds), member_rngs(seeds, "training")
    return lambda count: [learner.update(0, rngs) for _ in range(count)]
