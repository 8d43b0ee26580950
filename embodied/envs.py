"""Environments by name: `make_env("metaworld/drawer-close", seed=0)`.

First step of the flow: everything that acts or draws starts from an environment made here.  Meta-World environments are
built from the bare task classes, because the registered ones ignore `reset(seed=...)`, declare goal bounds of [0, 0] and
load their tasks from pickles; tests/test_assumptions.py holds each of these facts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from robopref.configs.errors import RoboprefError, nearest
from robopref.embodied.tasks import task

SUITES = ("metaworld",)
OBSERVATION_SIZE = 39  # 18 now (hand, gripper, two objects), 18 one step ago, 3 goal


class MetaWorldEnv(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """One Meta-World task with honoured seeds, an observation space that holds its observations, and `is_success`.

    Observations are (39,) float64; actions (4,) in [-1, 1]: gripper displacement in units of 1 cm a step, and finger effort.
    Episodes are truncated after 500 steps and never terminate.  `info["success"]` speaks of the present step,
    `info["is_success"]` (the key that Stable-Baselines3 reads) of the episode so far: success at any step counts.
    """

    def __init__(self, task_name: str, seed: int = 0, goal_visible: bool = True) -> None:
        import metaworld.env_dict  # 1 s, and not needed by those who only read files

        sawyer = metaworld.env_dict.ALL_V3_ENVIRONMENTS[f"{task_name}-v3"]()
        sawyer._partially_observable = not goal_visible
        sawyer.__dict__.pop("sawyer_observation_space", None)  # cached with the other visibility
        sawyer._set_task_called = True  # starts are drawn by seed below, not unpickled from a Task
        sawyer._freeze_rand_vec = False
        sawyer.seeded_rand_vec = True
        sawyer._get_curr_obs_combined_no_goal = observer(sawyer)  # type: ignore[method-assign]
        super().__init__(sawyer)
        self.task_name = task_name
        self.env_id = f"metaworld/{task_name}"
        self.goal_visible = goal_visible
        # The sawyer's own space bounds a visible goal wrongly and reset() does not clip to it.
        self.observation_space = Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float64)
        self.action_space = Box(-1.0, 1.0, (4,), np.float32)
        self._succeeded = False
        sawyer.seed(seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; with `seed` the start is a function of the seed alone, without it the next one of the stream."""
        if seed is not None:
            self.unwrapped.seed(seed)  # type: ignore[attr-defined]
        observation, info = self.env.reset(options=options)
        self._succeeded = False
        return observation, info | {"success": 0.0, "is_success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step 12.5 ms x frame skip; raises `RoboprefError` on an action that is not four finite numbers."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (4,) or not np.isfinite(action).all():
            raise RoboprefError(
                f"{self.env_id}: action must be 4 finite numbers in [-1, 1], got {action}; look for NaN in the policy's weights."
            )
        observation, reward, terminated, truncated, info = self.env.step(np.clip(action, -1.0, 1.0))
        self._succeeded |= bool(info["success"])
        return observation, reward, terminated, truncated, info | {"is_success": self._succeeded}


def observer(sawyer: Any) -> Callable[[], np.ndarray]:
    """What looks at a task: hand, gripper and objects, (18,), to the bit what `_get_curr_obs_combined_no_goal` gives.

    In a quarter of its time (docs/lab.md): bodies are found by name once, and nothing is split and stacked.
    """
    hand, right, left = (sawyer.model.body(name).id for name in ("hand", "rightclaw", "leftclaw"))
    size = 4 + sawyer._obs_obj_max_len

    def observe() -> np.ndarray:
        now, places = np.zeros(size), sawyer.data.xpos
        now[:3] = places[hand]
        apart = places[right] - places[left]
        now[3] = min(max(math.sqrt(apart @ apart) / 0.1, 0.0), 1.0)  # fingers are .1 m apart at the most
        where, turned = sawyer._get_pos_objects(), sawyer._get_quat_objects()
        objects = now[4 : 4 + len(where) + len(turned)].reshape(-1, 7)  # a place and a quaternion each
        objects[:, :3] = np.reshape(where, (-1, 3))
        objects[:, 3:] = np.reshape(turned, (-1, 4))
        return now

    return observe


def make_env(env_id: str, *, seed: int = 0, goal_visible: bool = True) -> MetaWorldEnv:
    """Make the environment called `SUITE/TASK`, e.g. `metaworld/drawer-close`; unknown names raise with the nearest one."""
    suite, _, name = env_id.partition("/")
    if suite not in SUITES or not name:
        raise RoboprefError(f"Unknown environment {env_id!r}: expected metaworld/TASK.{nearest(suite, SUITES)}")
    return MetaWorldEnv(task(name).name, seed=seed, goal_visible=goal_visible)
