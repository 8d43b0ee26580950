"""A toy task that policy tests learn in seconds: a point on a line, a goal, and data of which half runs away from it.

Observation (x, goal, noise), action (1,), x' = x + 0.1 a, reward 10 times the step towards
the goal.  Cloning averages towards and away, to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

STEPS = 30


@dataclass(frozen=True)
class PointEpisode:
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


class PointEnv:
    """The task as a gymnasium-like environment."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.x, self.goal = self.rng.uniform(-1, 1, 2)
        self.steps = 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        before = abs(self.x - self.goal)
        self.x += 0.1 * float(np.clip(action[0], -1, 1))
        self.steps += 1
        distance = abs(self.x - self.goal)
        return self._obs(), 10 * (before - distance), False, self.steps >= STEPS, {"success": distance < 0.05}

    def _obs(self) -> np.ndarray:
        return np.array([self.x, self.goal, self.rng.normal()])


def behave(kind: str, obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    towards = np.clip(5 * (obs[1:2] - obs[0:1]), -1, 1)
    mean = {"towards": towards, "away": -towards, "random": rng.uniform(-1, 1, 1)}[kind]
    return np.clip(mean + rng.normal(0, 0.2, 1), -1, 1).astype(np.float32)


def episodes(count: int = 60, seed: int = 0) -> list[PointEpisode]:
    env, rng, made = PointEnv(), np.random.default_rng(seed), []
    for number in range(count):
        kind = ("towards", "away", "random")[number % 3]
        obs, _ = env.reset(seed=1000 + number + 100 * seed)
        rows, actions, rewards, done = [obs], [], [], False
        while not done:
            action = behave(kind, obs, rng)
            obs, reward, _, done, _ = env.step(action)
            rows.append(obs)
            actions.append(action)
            rewards.append(reward)
        made.append(PointEpisode(np.stack(rows), np.stack(actions), np.array(rewards)))
    return made


def preferences(data: list[PointEpisode], count: int = 200, length: int = 10, seed: int = 0) -> pd.DataFrame:
    """Random pairs of segments; the higher true return wins, equal ones tie."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row: dict[str, float] = {}
        returns = []
        for side in "ab":
            episode = int(rng.integers(len(data)))
            start = int(rng.integers(STEPS - length + 1))
            row |= {f"episode_{side}": episode, f"start_{side}": start, f"stop_{side}": start + length}
            returns.append(data[episode].rewards[start : start + length].sum())
        row["label"] = 0.5 if returns[0] == returns[1] else float(returns[1] > returns[0])
        rows.append(row)
    return pd.DataFrame(rows)
