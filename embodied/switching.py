"""Worlds that change: an environment whose conditions are drawn anew every so many frames of a run.

    env = SwitchingEnv("mujoco/Ant-v5", 1, SwitchConfig("friction"));  env.enter(3);  env.reset(seed=...)

Which conditions hold is a function of the switch's seed and of the phase, a number that whoever counts frames gives; it holds
from the next reset on, so that an episode is of one phase.  `friction` follows Slippery Ant (Dohare et al., Nature 2024), `tasks`
continual DMC (stand, walk, run: C-CHAIN's setting) and sequences of Meta-World; `goal` and `observation` are ours.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.policy import SwitchConfig
from robopref.embodied.control import ControlEnv, make_control

KINDS = ("none", "friction", "tasks", "goal", "observation")


class SwitchingEnv(ControlEnv):
    """A ControlEnv that may be told to `enter` another phase."""

    def __init__(self, env_id: str, repeat: int, switch: SwitchConfig) -> None:
        self.switch, self.phase, self.next_phase = switch, 0, 0
        self.worlds = [make_control(name, repeat) for name in task_ids(env_id, switch)]
        first = self.worlds[0]
        super().__init__(first.env, env_id, repeat)
        for world in self.worlds[1:]:
            if world.sizes != first.sizes:
                raise RoboprefError(
                    f"switch.tasks: {world.env_id} has {world.sizes} numbers in an observation and an action, {first.env_id} has "
                    f"{first.sizes}; give tasks of the same robot"
                )
        if switch.kind == "friction":
            self._friction = model_of(first).geom_friction[:, 0].copy()
        self.begin_phase()

    def enter(self, phase: int) -> None:
        """Let `phase` (0, 1, ...) begin at the next reset."""
        self.next_phase = phase

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """As the environment's own; with kind=goal every episode of a phase has the same start and goal."""
        if self.next_phase != self.phase:
            self.phase = self.next_phase
            self.begin_phase()
        if self.switch.kind == "goal":
            seed = int(self.rng().integers(2**31))
        observation, info = super().reset(seed=seed, options=options)
        return self.shown(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As ControlEnv's."""
        observation, reward, terminated, truncated, info = super().step(action)
        return self.shown(observation), reward, terminated, truncated, info

    def shown(self, observation: np.ndarray) -> np.ndarray:
        """The observation as the present phase shows it."""
        return observation if self.switch.kind != "observation" else observation * self._gain + self._offset

    @property
    def told(self) -> str:
        """The present phase in words, such as "phase 3, friction x 0.27"."""
        return f"phase {self.phase}" + (f", friction x {self.factor:.2g}" if self.switch.kind == "friction" else "")

    def rng(self) -> np.random.Generator:
        """What the present phase's conditions are drawn with, from its beginning."""
        return np.random.default_rng([self.switch.seed, zlib.crc32(self.switch.kind.encode()), self.phase])

    def begin_phase(self) -> None:
        """Put the present phase's conditions in force."""
        rng, switch = self.rng(), self.switch
        if switch.kind == "friction":
            # What two bodies have with each other is the larger of their frictions, so all are scaled.
            self.factor = 1.0 if self.phase == 0 else float(np.exp(rng.uniform(np.log(switch.low), np.log(switch.high))))
            model_of(self).geom_friction[:, 0] = self._friction * self.factor
        elif switch.kind == "tasks":
            world = self.worlds[self.phase % len(self.worlds)]
            self.env, self.env_id = world.env, world.env_id
        elif switch.kind == "observation":
            size = self.sizes[0]
            self._gain, self._offset = (
                np.exp(rng.uniform(-switch.spread, switch.spread, size)),
                rng.normal(0, switch.spread, size),
            )
            if self.phase == 0:
                self._gain, self._offset = np.ones(size), np.zeros(size)


def model_of(env: ControlEnv) -> Any:
    """The MuJoCo model that an environment computes with."""
    inner = env.unwrapped
    return inner.physics.model.ptr if hasattr(inner, "physics") else inner.model  # type: ignore[attr-defined]


def task_ids(env_id: str, switch: SwitchConfig) -> list[str]:
    """The environments of all phases; RoboprefError for a switch that this environment cannot make."""
    if switch.kind not in KINDS:
        raise UsageError(f"switch.kind={switch.kind}: one of {', '.join(KINDS)}.{nearest(switch.kind, KINDS)}")
    if switch.kind == "goal" and not env_id.startswith("metaworld/"):
        raise RoboprefError(f"switch=goal is for metaworld/TASK, whose goals a reset draws; {env_id} has none")
    if switch.kind == "friction" and not 0 < switch.low <= switch.high:
        raise UsageError(
            f"switch.low={switch.low}, switch.high={switch.high}: frictions are multiplied by what lies between; 0 < low <= high"
        )
    if switch.kind != "tasks":
        return [env_id]
    if len(switch.tasks) < 2:
        raise UsageError("switch=tasks goes from task to task: give switch.tasks=[A,B,...]")
    suite = env_id.split("/")[0]
    return [name if "/" in name else f"{suite}/{name}" for name in switch.tasks]
