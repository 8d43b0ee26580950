"""How well a policy acts: success over fixed goals.

A goal is an environment seed, so every policy and member meets the same starts.  Comes after policies are trained; goes to
statistics.py, and with it to the success table of the report.

Axes: N observations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import pandas as pd

from robopref.configs.errors import RoboprefError
from robopref.embodied.experts import Act


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


def table(policy: str, member: int, results: Iterable[EpisodeResult]) -> pd.DataFrame:
    """Rows of success.csv: policy, member, goal, success, success_step, ret, steps."""
    frame = pd.DataFrame([vars(result) for result in results])
    frame.insert(0, "member", member)
    frame.insert(0, "policy", policy)
    return frame
