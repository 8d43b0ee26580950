"""How well a policy acts: success or return over fixed goals.

A goal is an environment seed, so every policy and member meets the same starts.  Comes after policies are trained; goes to
statistics.py, and with it to the success table of the report.

Two protocols.  `success`: an episode ends at its first success, as Meta-World counts.  `return`: it goes on to its own end, as
D4RL and gymnasium count, whose tasks pay for staying where success is; whether it came is noted all the same.

Axes: N observations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np
import pandas as pd

from robopref.configs.errors import RoboprefError
from robopref.embodied.experts import Act

EvaluationProtocol = Literal["success", "return"]
KNOW_SUCCESS = ("metaworld", "adroit")  # suites whose steps say whether the task is done


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
    """The step that first succeeded, counted from 0; -1 without one.  films.json of `robopref video` counts from 1."""
    ret: float
    """Sum of the rewards of its `steps`: by the protocol `return` those of the whole episode."""
    steps: int


def protocol_of(env_id: str) -> EvaluationProtocol:
    """How an environment's episodes are counted unless asked otherwise: `success` in Meta-World, elsewhere `return`.

    Elsewhere: where there is no success (dmc, mujoco), and where D4RL's reference returns, which are of whole episodes, set the
    scale (adroit).
    """
    return "success" if env_id.startswith("metaworld/") else "return"


def evaluate(
    policy: Policy,
    env: gym.Env[Any, Any],
    goals: Sequence[int],
    max_steps: int = 500,
    protocol: EvaluationProtocol = "success",
) -> list[EpisodeResult]:
    """Act once from each goal's start until the episode ends, max_steps, or, by the protocol `success`, the first success.

    RoboprefError naming goal and step when the environment or the policy returns NaN.
    """
    return [_episode(policy, env, goal, max_steps, protocol) for goal in goals]


def _episode(policy: Policy, env: gym.Env[Any, Any], goal: int, max_steps: int, protocol: EvaluationProtocol) -> EpisodeResult:
    obs, _ = env.reset(seed=goal)
    ret, success_step = 0.0, -1
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
        if info.get("success") and success_step < 0:
            success_step = step
        if terminated or truncated or (success_step >= 0 and protocol == "success"):
            break
    return EpisodeResult(goal, success_step >= 0, success_step, ret, step + 1)


def table(policy: str, member: int, results: Iterable[EpisodeResult]) -> pd.DataFrame:
    """Rows of success.csv, a row an episode: policy, member, goal, success, success_step (counted from 0), ret, steps."""
    frame = pd.DataFrame([vars(result) for result in results])
    frame.insert(0, "member", member)
    frame.insert(0, "policy", policy)
    return frame
