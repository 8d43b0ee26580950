"""Hopper, Walker2d and HalfCheetah of Gymnasium, many at a time: MuJoCo steps one after the other, all else is done once for all.

Gymnasium's own Python takes as long as MuJoCo for these robots.  The numbers are Gymnasium's to the bit (tests/test_planar.py);
weights and bounds are read from its environments, which start the episodes.

Axes: n environments, do and da numbers in an observation and an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import mujoco
import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

from robopref.embodied.control import ROUNDING, ControlEnv

FASTEST = 10.0  # that hopper and walker show of a velocity


class Planar:
    """n environments of one of the three robots."""

    def __init__(self, envs: Sequence[ControlEnv]) -> None:
        self.envs = envs
        self.worlds: list[Any] = [env.unwrapped for env in envs]
        self.first = first = self.worlds[0]
        self.falls = not isinstance(first, HalfCheetahEnv)
        self.limit = envs[0].spec.max_episode_steps if envs[0].spec else None
        self.places, self.speeds = np.zeros((len(envs), first.model.nq)), np.zeros((len(envs), first.model.nv))

    @classmethod
    def of(cls, envs: Sequence[ControlEnv]) -> Self | None:
        """These environments, if they are such."""
        world: Any = envs[0].unwrapped
        if type(world) not in (HopperEnv, Walker2dEnv, HalfCheetahEnv) or envs[0].repeat > 1:
            return None
        return cls(envs) if world._exclude_current_positions_from_observation else None

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Actions (n, da) in [-1, 1]: observations (n, do), rewards (n,), terminated (n,); RoboprefError as ControlEnv's."""
        world, actions = self.first, np.asarray(actions, np.float64)
        if not (np.abs(actions) <= 1 + ROUNDING).all():
            for env, action in zip(self.envs, actions, strict=True):
                env.check_action(action)
        forces = self.envs[0].forces(actions)
        before = np.empty(len(self.worlds))
        for number, (one, force) in enumerate(zip(self.worlds, forces, strict=True)):
            data = one.data
            before[number] = data.qpos[0]
            data.ctrl[:] = force
            mujoco.mj_step(one.model, data, nstep=one.frame_skip)
            self.places[number], self.speeds[number] = data.qpos, data.qvel
            self.envs[number].frame += 1
        rewards = world._forward_reward_weight * ((self.places[:, 0] - before) / world.dt)
        terminated = np.zeros(len(rewards), np.bool_)
        if self.falls:
            healthy = self.healthy()
            rewards = rewards + healthy * world._healthy_reward
            terminated = ~healthy & world._terminate_when_unhealthy
        rewards = rewards - world._ctrl_cost_weight * np.square(forces).sum(1)
        shown = self.speeds.clip(-FASTEST, FASTEST) if self.falls else self.speeds
        obs = np.concatenate([self.places[:, 1:], shown], 1)
        if not (np.isfinite(obs).all() and np.isfinite(rewards).all()):
            for env, row, reward in zip(self.envs, obs, rewards.tolist(), strict=True):
                env.check_outcome(row, reward)
        return obs, rewards, terminated

    def healthy(self) -> np.ndarray:
        """Who stands, (n,)."""
        world, (z, angle) = self.first, self.places[:, 1:3].T
        (low, high), (left, right) = world._healthy_z_range, world._healthy_angle_range
        healthy = (low < z) & (z < high) & (left < angle) & (angle < right)
        if isinstance(world, HopperEnv):
            least, most = world._healthy_state_range
            state = np.concatenate([self.places, self.speeds], 1)[:, 2:]
            healthy &= ((least < state) & (state < most)).all(1)
        return healthy
