"""Continuous control: `dmc/walker-walk`, `mujoco/HalfCheetah-v5`, `metaworld/drawer-close`, `adroit/door`.

For agents that learn while they act, and to try out what was learnt from data.  One interface for four suites: flat float64
observations, actions in [-1, 1], a reset that is a function of its seed alone, `terminated` only where the episode ends for
good.  An action may be repeated, its rewards summed; then a step is several frames.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from robopref.configs.errors import RoboprefError, nearest
from robopref.embodied.envs import make_env
from robopref.embodied.tasks import TASKS

SUITES = ("dmc", "mujoco", "metaworld", "adroit")
ADROIT = {"pen": 100, "hammer": 200, "door": 200, "relocate": 200}  # steps of an episode in D4RL
DMC_STEPS = 1000  # of every task of the suite
METAWORLD_STEPS = 500
ROUNDING = 1e-6  # by which an action may be outside [-1, 1]


class DMCEnv(gym.Env[np.ndarray, np.ndarray]):
    """A task of the DeepMind Control suite: observations flattened in the suite's own order, (do,) float64.

    An episode is cut by time after 1,000 frames; no task of the suite ends earlier than that.
    """

    def __init__(self, name: str) -> None:
        try:
            from dm_control import suite
        except ImportError as error:
            raise RoboprefError("dmc/... needs dm_control: pip install 'robopref[dmc]'") from error
        tasks = dmc_tasks()
        if name not in tasks:
            raise RoboprefError(f"dmc has no task {name!r}.{nearest(name, list(tasks))}")
        self._env = suite.load(*tasks[name], task_kwargs={"random": 0})
        self.env_id = f"dmc/{name}"
        size = sum(int(np.prod(spec.shape)) for spec in self._env.observation_spec().values())
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)
        spec = self._env.action_spec()
        self.action_space = Box(spec.minimum, spec.maximum, spec.shape, np.float64)

    @property
    def physics(self) -> Any:
        """dm_control's simulation: its `model.ptr` and `data.ptr` are MuJoCo's own."""
        return self._env.physics

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; with `seed` the start is a function of the seed alone, without it the next one of the stream."""
        if seed is not None:
            self._env.task._random = np.random.RandomState(seed)
        return flat(self._env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One frame."""
        time = self._env.step(action)
        ended = time.last()
        return flat(time.observation), float(time.reward), ended and time.discount == 0, ended and time.discount != 0, {}


def dmc_tasks() -> dict[str, tuple[str, str]]:
    """Our names of the suite's tasks -> (domain, task)."""
    from dm_control import suite

    return {f"{domain}-{task}".replace("_", "-"): (domain, task) for domain, task in suite.ALL_TASKS}


class AdroitEnv(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """A task of the Adroit hand with the dense rewards and the ends of D4RL, so that its reference scores mean something.

    gymnasium-robotics pays 0.1 a metre for the distance of the palm to hammer, door handle or ball, where D4RL takes as much
    off (its pull request 220; it says so when it is imported), and goes on when the pen was dropped, where D4RL ends.  All
    distances are in the observation.  Episodes of D4RL's length.
    """

    def __init__(self, name: str) -> None:
        if name not in ADROIT:
            raise RoboprefError(f"adroit has no task {name!r}: it has {', '.join(ADROIT)}.{nearest(name, ADROIT)}")
        try:
            with redirect_stderr(io.StringIO()):  # the notice about the rewards that are put right here
                import gymnasium_robotics
        except ImportError as error:
            raise RoboprefError("adroit/... needs gymnasium-robotics: pip install 'robopref[adroit]'") from error
        gym.register_envs(gymnasium_robotics)
        full = f"AdroitHand{name.capitalize()}-v1"
        super().__init__(gym.make(full, max_episode_steps=ADROIT[name], disable_env_checker=True))
        self.task = name

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As the environment's own, but for what is said above."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self.task == "pen":
            terminated = bool(obs[26] < 0.075)  # height of the pen's middle; the penalty for it is in the reward
        else:
            away = {"hammer": obs[33:36] - obs[36:39], "door": obs[35:38], "relocate": obs[30:33]}[self.task]
            reward = float(reward) - 0.2 * float(np.linalg.norm(away))
        return obs, float(reward), terminated, truncated, info


class ControlEnv(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Actions in [-1, 1], repeated for `repeat` frames; RoboprefError for NaN and for what is no Box of actions."""

    def __init__(self, env: gym.Env[Any, Any], env_id: str, repeat: int = 1) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, Box) or not np.isfinite([space.low, space.high]).all():
            raise RoboprefError(f"{env_id}: its actions are {space}, but agents here act in a box with finite bounds")
        self.env_id, self.repeat, self.frame = env_id, repeat, 0
        self._low, self._range = space.low.astype(np.float64), (space.high - space.low).astype(np.float64)
        self.action_space = Box(-1.0, 1.0, space.shape, np.float32)

    @property
    def sizes(self) -> tuple[int, int]:
        """(do, da)."""
        return int(np.prod(self.observation_space.shape or ())), int(np.prod(self.action_space.shape or ()))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """As the environment's own."""
        self.frame = 0
        observation, info = self.env.reset(seed=seed, options=options)
        return np.asarray(observation, np.float64), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """`repeat` frames, or fewer at an end: the last observation and the sum of the rewards."""
        action = np.asarray(action, np.float64)
        self.check_action(action)
        forces, total = self.forces(action), 0.0
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, info = self.env.step(forces)
            total += float(reward)
            self.frame += 1
            if terminated or truncated:
                break
        self.check_outcome(observation, total)
        return np.asarray(observation, np.float64), total, bool(terminated), bool(truncated), info

    def forces(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., da) in [-1, 1] as the environment below takes them."""
        return self._low + (np.clip(actions, -1.0, 1.0) + 1) / 2 * self._range

    def check_action(self, action: np.ndarray) -> None:
        """RoboprefError unless it is (da,) numbers in [-1, 1]."""
        if action.shape != self.action_space.shape or not (np.abs(action) <= 1 + ROUNDING).all():
            raise RoboprefError(
                f"{self.env_id}, frame {self.frame}: an action must be {self.action_space.shape} numbers in [-1, 1], got "
                f"{action.tolist()}; look for NaN in the policy's weights"
            )

    def check_outcome(self, observation: np.ndarray, reward: float) -> None:
        """RoboprefError for what is not finite."""
        if not (np.isfinite(observation).all() and np.isfinite(reward)):
            raise RoboprefError(
                f"{self.env_id}, frame {self.frame}: observation or reward is not finite; the simulation became unstable"
            )


def make_control(env_id: str, repeat: int = 1) -> ControlEnv:
    """The environment called `SUITE/TASK`; unknown names raise RoboprefError with the nearest one."""
    suite, _, name = env_id.partition("/")
    if suite not in SUITES or not name:
        raise RoboprefError(f"Unknown environment {env_id!r}: expected {', '.join(SUITES)}/TASK.{nearest(suite, SUITES)}")
    if suite == "metaworld":
        return ControlEnv(make_env(env_id), env_id, repeat)
    if suite == "dmc":
        return ControlEnv(DMCEnv(name), env_id, repeat)
    if suite == "adroit":
        return ControlEnv(AdroitEnv(name), env_id, repeat)
    try:
        env = gym.make(registered(name), disable_env_checker=True)
    except gym.error.Error as error:
        known = [spec for spec in gym.registry if "/" not in spec]
        raise RoboprefError(f"mujoco has no environment {name!r}.{nearest(name, known)}") from error
    return ControlEnv(env, env_id, repeat)


def registered(name: str) -> str:
    """The gymnasium id of an environment of mujoco/NAME: HalfCheetah-v5 for halfcheetah."""
    return next((spec for spec in gym.registry if "/" not in spec and spec.lower() == f"{name.lower()}-v5"), name)


def full_name(name: str) -> str:
    """SUITE/TASK of an environment that may be named without its suite: metaworld/door-close of door-close.

    RoboprefError, with the candidates, where several suites have it or none has.
    """
    if "/" in name:
        return name
    known = [f"metaworld/{task}" for task in TASKS] + [f"adroit/{task}" for task in ADROIT]
    # hopper and Hopper-v5, but no environment of gymnasium that is not simulated by MuJoCo
    entry = gym.registry.get(registered(name)) or next((s for i, s in gym.registry.items() if i.lower() == name.lower()), None)
    found = [full for full in known if full.partition("/")[2] == name.removesuffix("-v3")]
    if entry is not None and str(entry.entry_point).startswith("gymnasium.envs.mujoco"):
        found.append(f"mujoco/{name}")
    if not found:  # dm_control is an extra, and takes a second to import
        dmc = dmc_tasks() if find_spec("dm_control") else {}
        known += [f"dmc/{task}" for task in dmc]
        found = [f"dmc/{name}"] if name in dmc else []
    if len(found) == 1:
        return found[0]
    if found:
        raise RoboprefError(f"there are several environments {name!r}: give {' or '.join(found)}")
    known += [f"mujoco/{task}" for task in ("ant", "halfcheetah", "hopper", "humanoid", "walker2d")]
    short = {full.partition("/")[2]: full for full in known}
    near = get_close_matches(name, short, n=3, cutoff=0.5)
    hint = f" Near it are {', '.join(short[one] for one in near)}" if near else ""
    raise RoboprefError(f"Unknown environment {name!r}: expected {', '.join(SUITES)}/TASK.{hint}")


def same_environment(one: str, other: str) -> bool:
    """Whether two names SUITE/TASK are of one environment, such as mujoco/hopper and mujoco/Hopper-v5."""
    return _canonical(one) == _canonical(other)


def _canonical(env_id: str) -> str:
    suite, _, name = env_id.partition("/")
    return f"{suite}/{registered(name) if suite == 'mujoco' else name.removesuffix('-v3') if suite == 'metaworld' else name}"


def step_limit(env_id: str) -> int | None:
    """Frames after which an environment cuts its episodes, without making it; None where it cuts none or is not known."""
    suite, _, name = env_id.partition("/")
    if suite == "mujoco":
        full = registered(name)
        return gym.registry[full].max_episode_steps if full in gym.registry else None
    return ADROIT.get(name) if suite == "adroit" else {"dmc": DMC_STEPS, "metaworld": METAWORLD_STEPS}.get(suite)


def world_box(env_id: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest action (da,) float64 that the environment itself takes, which agents reach as -1 and 1 (`forces`).

    None for an environment that is not known or not installed, and where actions have no finite bounds.
    """
    try:
        env = make_control(env_id)
    except RoboprefError:
        return None
    ones = np.ones(env.action_space.shape or ())
    low, high = env.forces(-ones), env.forces(ones)
    env.close()
    return low, high


def flat(observation: dict[str, Any]) -> np.ndarray:
    """All entries of a dm_control observation, one after the other."""
    return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float64)
