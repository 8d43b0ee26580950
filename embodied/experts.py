"""Scripted behaviour to collect from: the expert of each task, and the degraded levels made from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Act = Callable[[np.ndarray], np.ndarray]
"""What rollout needs: observation (39,) -> action (4,)."""


class ScriptedExpert:
    """Meta-World's hand-written policy of a task; 0.8-1.0 success, also under N(0, 0.1) action noise."""

    def __init__(self, task_name: str) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        make_policy: Any = ENV_POLICY_MAP[f"{task_name}-v3"]  # typed there as the abstract base class
        self._policy = make_policy()

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Observation (39,) -> action (4,)."""
        with warnings.catch_warnings(record=True):  # it warns that its constants exceed 1 and are clipped: so they are
            return np.clip(self._policy.get_action(observation), -1.0, 1.0)


def noisy(act: Act, scale: float, rng: np.random.Generator) -> Act:
    """`act` with N(0, scale) noise on every action, clipped to [-1, 1] (methods of VLP and CPL alike)."""
    return lambda observation: np.clip(act(observation) + rng.normal(0.0, scale, 4), -1.0, 1.0)


def uniform(rng: np.random.Generator, action_dim: int = 4) -> Act:
    """Actions uniform in [-1, 1]: the random level."""
    return lambda observation: rng.uniform(-1.0, 1.0, action_dim)


def wandering(rng: np.random.Generator, longest: int = 50) -> Act:
    """Random actions, each held for 1 to `longest` steps, half of their numbers at -1 or 1: as an agent acts that learns.

    Unlike `uniform`, whose steps cancel out, the hand gets to the edges of what it can reach.
    """
    action, left = np.zeros(4), 0

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal action, left
        if left == 0:
            action, left = np.clip(rng.uniform(-2.0, 2.0, 4), -1.0, 1.0), int(rng.integers(1, longest + 1))
        left -= 1
        return action

    return act


def mismatched(act: Act, own_start: np.ndarray, other_start: np.ndarray) -> Act:
    """`act`, told that objects and goal are where another episode had them (CPL's "mismatched goal" data).

    own_start, other_start: (39,) first observations of this and of the other episode.
    """
    shift = other_start - own_start
    shift[[0, 1, 2, 3, 18, 19, 20, 21]] = 0.0  # the hand and the gripper are felt, not believed
    return lambda observation: act(observation + shift)
