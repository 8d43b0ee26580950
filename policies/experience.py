"""What an agent has met so far, in one memory-mapped array: bounded memory, no pickle, and it survives the process.

A row is a transition: observation, action, reward, terminated, next observation, float32.  The oldest rows go when it is full.
The file has room for `spare` more than are remembered: what a process adds after its last checkpoint then takes nothing away
that the checkpoint still remembers.

Axes: C capacity, B batch, do and da numbers in an observation and an action.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json, write_json

ROWS, WHAT = "experience.npy", "experience.json"


class Experience(NamedTuple):
    """A minibatch of transitions."""

    obs: Tensor  # (B, do)
    actions: Tensor  # (B, da) in [-1, 1]
    rewards: Tensor  # (B,)
    terminated: Tensor  # (B,) 1 where the episode ended for good; where only time ran out, 0
    next_obs: Tensor  # (B, do)


class ExperienceMemory:
    """The last C transitions of one environment, in `folder`; a file that is there is gone on with."""

    def __init__(self, folder: Path, env_id: str, obs_dim: int, action_dim: int, capacity: int, spare: int = 0) -> None:
        self.path, self.capacity, self.dims = folder / ROWS, capacity, (obs_dim, action_dim)
        self.added = 0
        """Transitions so far; what of it a process finds again is its checkpoint's to say."""
        what = {"env": env_id, "obs_dim": obs_dim, "action_dim": action_dim, "capacity": capacity, "spare": spare}
        shape = capacity + spare, 2 * obs_dim + action_dim + 2
        if self.path.exists():
            found = read_json(folder / WHAT)
            if found != what:
                raise RoboprefError(
                    f"{self.path} holds experience of {found}, wanted is {what}: delete it or choose another out="
                )
            self.rows = np.load(self.path, mmap_mode="r+", allow_pickle=False)
            if self.rows.shape != shape or self.rows.dtype != np.float32:
                raise RoboprefError(f"{self.path} is damaged (shape {self.rows.shape}): delete {folder} and start again")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / WHAT, what)
            # A sparse file: what has not been met takes no disk.
            self.rows = np.lib.format.open_memmap(self.path, "w+", np.float32, shape)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, obs: np.ndarray, action: np.ndarray, reward: float, terminated: bool, next_obs: np.ndarray) -> None:
        """One more transition; RoboprefError for a reward that is not finite."""
        if not np.isfinite(reward):
            raise RoboprefError(f"step {self.added}: the reward is {reward}; look at the reward function")
        obs_dim, action_dim = self.dims
        row = self.rows[self.added % len(self.rows)]
        row[:obs_dim], row[obs_dim : obs_dim + action_dim] = obs, action
        row[-obs_dim - 2], row[-obs_dim - 1], row[-obs_dim:] = reward, terminated, next_obs
        self.added += 1

    def sample(self, rng: np.random.Generator, size: int, device: torch.device | str = "cpu") -> Experience:
        """`size` transitions, uniform with replacement."""
        obs_dim, action_dim = self.dims
        numbers = self.added - 1 - rng.integers(len(self), size=size)
        rows = torch.from_numpy(self.rows[numbers % len(self.rows)]).to(device)
        obs, actions, rewards, terminated, next_obs = rows.split([obs_dim, action_dim, 1, 1, obs_dim], 1)
        return Experience(obs, actions, rewards.squeeze(1), terminated.squeeze(1), next_obs)

    def flush(self) -> None:
        """Everything that was added to the disk."""
        self.rows.flush()
