"""How well a policy acts: success over fixed goals, and the interval that goes with it.

A goal is an environment seed, so every policy and member meets the same starts.  Comes after policies are trained; goes to
the success table of the report.

Axes: S members (policies of one algorithm, different training seeds), G goals, N observations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import pandas as pd
from scipy.stats import trim_mean

from robopref.configs.errors import RoboprefError
from robopref.embodied.experts import Act

RESAMPLES = 2000  # bootstrap replicates; the 95 % ends then move by about a hundredth between seeds


class Policy(Protocol):
    """What evaluation and video ask of a learner, ours or another library's."""

    def act(self, obs: np.ndarray, deterministic: bool = True) -> np.ndarray:
        """Actions (N, da) float32 in [-1, 1] for raw observations (N, do)."""


class ActPolicy:
    """A function of one observation, such as a scripted expert, as a Policy."""

    def __init__(self, function: Act) -> None:
        self.function = function

    def act(self, obs: np.ndarray, deterministic: bool = True) -> np.ndarray:
        """The function, row by row."""
        return np.stack([self.function(row) for row in obs]).astype(np.float32)


@dataclass(frozen=True)
class EpisodeResult:
    """One episode of an evaluation."""

    goal: int
    success: bool
    """At any step; never in a world that knows none, such as dmc's."""
    success_step: int
    """Steps before the first success; -1 without one."""
    ret: float
    """Sum of the rewards until the episode stopped."""
    steps: int


def evaluate(policy: Policy, env: gym.Env[Any, Any], goals: Sequence[int], max_steps: int = 500) -> list[EpisodeResult]:
    """Act once from each goal's start until success, truncation or max_steps.

    RoboprefError naming goal and step when the environment or the policy returns NaN.
    """
    return [_episode(policy, env, goal, max_steps) for goal in goals]


def _episode(policy: Policy, env: gym.Env[Any, Any], goal: int, max_steps: int) -> EpisodeResult:
    obs, _ = env.reset(seed=goal)
    ret = 0.0
    for step in range(max_steps):
        action = policy.act(obs[None])[0]
        if not np.isfinite(action).all():
            raise RoboprefError(
                f"goal {goal}, step {step}: the policy returned {action.tolist()}; its weights or the observation hold NaN, "
                "train it again"
            )
        obs, reward, terminated, truncated, info = env.step(action)
        if not np.isfinite(obs).all():
            raise RoboprefError(f"goal {goal}, step {step}: the simulation became unstable; choose another --first-goal")
        ret += float(reward)
        if info.get("success"):
            return EpisodeResult(goal, True, step, ret, step + 1)
        if terminated or truncated:
            break
    return EpisodeResult(goal, False, -1, ret, step + 1)


def iqm(x: np.ndarray) -> float:
    """Interquartile mean of all numbers in x: their mean without the lowest and the highest quarter.

    Up to three numbers nothing is cut.  Meant for success rates, one a member; of single outcomes, 0 or 1, it would make 0.8
    a 1.
    """
    return float(trim_mean(np.asarray(x, np.float64).ravel(), 0.25))


def bootstrap_interval(x: np.ndarray, rng: np.random.Generator, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of `iqm` of the members' success rates, for outcomes x (S, G).

    Stratified by member: each replicate draws S members, and for each G of its own goals, both with replacement, so that the
    interval holds the spread between training seeds and between goals.
    """
    members, goals = x.shape
    rows = rng.integers(members, size=(RESAMPLES, members))
    columns = rng.integers(goals, size=(RESAMPLES, members, goals))
    rates = x[rows[:, :, None], columns].mean(-1)
    low, high = np.quantile(trim_mean(rates, 0.25, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summarise(outcomes: pd.DataFrame, seed: int = 0, measure: str = "success") -> dict[str, dict[str, float]]:
    """{policy: {iqm, low, high, mean, n}} from rows policy, member, goal, success; n: episodes; low, high: 95 % interval.

    measure: the column that counts; `ret` where there is no success.
    """
    summary = {}
    for policy, rows in outcomes.groupby("policy", sort=False):
        x = rows.pivot(index="member", columns="goal", values=measure).to_numpy(np.float64)
        low, high = bootstrap_interval(x, np.random.default_rng(seed))
        summary[str(policy)] = {"iqm": iqm(x.mean(1)), "low": low, "high": high, "mean": float(x.mean()), "n": x.size}
    return summary


def table(policy: str, member: int, results: Iterable[EpisodeResult]) -> pd.DataFrame:
    """Rows of success.csv: policy, member, goal, success, success_step, ret, steps."""
    frame = pd.DataFrame([vars(result) for result in results])
    frame.insert(0, "member", member)
    frame.insert(0, "policy", policy)
    return frame
