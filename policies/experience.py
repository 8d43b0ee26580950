"""What an agent has met so far, in one memory-mapped array: bounded memory, no pickle, and it survives the process.

A row is a transition: observation, action, two rewards, terminated, next observation, float32.  The oldest rows go when it is
full.  A process that is killed may have written after its last checkpoint, and must not have spoilt what that remembers: the
file has `spare` more rows than are remembered, and a new reward of all rows is written beside the one in use, which
changes (`in_use`) when it is whole.  So between two `relabel` there has to be a checkpoint, and between two checkpoints there may
be `spare` rows.

Axes: C capacity, B batch, do and da numbers in an observation and an action.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from robopref.configs.arrays import read_array
from robopref.configs.digests import ANYWAY
from robopref.configs.errors import RoboprefError, one_line
from robopref.configs.files import atomic_file, is_full, new_array_file, read_json, reserve, skips_digests, write_json
from robopref.policies.replay import MIN_STD, Normaliser
from robopref.preference.reward import RewardFunction

ROWS, WHAT = "experience.npy", "experience.json"
RELABEL_CHUNK = 8192  # transitions, to bound memory
WITNESSES = 64  # rows that a checkpoint keeps of what is remembered: enough to notice other or lost ones, and small beside it


class Experience(NamedTuple):
    """A minibatch of transitions."""

    obs: Tensor  # (B, do)
    actions: Tensor  # (B, da) in [-1, 1]
    rewards: Tensor  # (B,)
    terminated: Tensor  # (B,) 1 where the episode ended for good; where only time ran out, 0
    next_obs: Tensor  # (B, do)


class RunningNormaliser(nn.Module):
    """Standardises by mean and deviation of all observations so far (Welford's sums).

    SimBa's (arXiv 2410.09754), but what hardly moves is divided by MIN_STD, as in replay.py.
    """

    def __init__(self, obs_dim: int) -> None:
        super().__init__()
        self.count = nn.Buffer(torch.zeros((), dtype=torch.float64))
        self.mean, self.squares = (nn.Buffer(torch.zeros(obs_dim, dtype=torch.float64)) for _ in range(2))

    def add(self, obs: Tensor) -> None:
        """One more, (do,) float64."""
        self.count.add_(1)
        before = obs - self.mean
        self.mean.add_(before / self.count)
        self.squares.add_(before * (obs - self.mean))

    def now(self) -> Normaliser:
        """As it is; before the first observation it changes nothing."""
        std = torch.where(self.count > 0, (self.squares / self.count.clamp(min=1)).sqrt().clamp(min=MIN_STD), 1.0)
        return Normaliser(self.mean.float(), std.float())

    def forward(self, obs: Tensor) -> Tensor:
        """Observations (B, do) float32, standardised."""
        return self.now()(obs)


class ExperienceMemory:
    """The last C transitions of one environment, in `folder`; a file that is there is gone on with."""

    def __init__(
        self,
        folder: Path,
        env_id: str,
        obs_dim: int,
        action_dim: int,
        capacity: int,
        spare: int = 0,
        most: int | None = None,
    ) -> None:
        """most: transitions that will be added; the disk keeps room for no more.  RoboprefError where it has not that much."""
        self.path, self.capacity, self.dims = folder / ROWS, capacity, (obs_dim, action_dim)
        self.added, self.in_use = 0, 0
        """Transitions so far, and which reward counts; what of it a process finds again is its checkpoint's to say."""
        what = {"env": env_id, "obs_dim": obs_dim, "action_dim": action_dim, "capacity": capacity, "spare": spare}
        shape = capacity + spare, 2 * obs_dim + action_dim + 3
        self.used = shape[0] if most is None else min(most, shape[0])
        if self.path.exists():
            found = read_json(folder / WHAT)
            if found != what:
                of = one_line(ValueError(found))
                raise RoboprefError(f"{self.path} holds experience of {of}, wanted is {what}: delete it or choose another out=")
            self.rows = opened(self.path, self.used)
            if self.rows.shape != shape or self.rows.dtype != np.float32:
                raise RoboprefError(f"{self.path} is damaged (shape {self.rows.shape}): delete {folder} and start again")
        else:
            with atomic_file(self.path) as temp:
                self.rows = created(self.path, temp, np.float32, shape, self.used)
                write_json(folder / WHAT, what)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, obs: np.ndarray, action: np.ndarray, reward: float, terminated: bool, next_obs: np.ndarray) -> None:
        """One more transition; RoboprefError for a reward that is not finite."""
        if not np.isfinite(reward):
            raise RoboprefError(f"step {self.added}: the reward is {reward}; look at the reward function")
        obs_dim, action_dim = self.dims
        row = self.rows[self.added % len(self.rows)]
        row[:obs_dim], row[obs_dim : obs_dim + action_dim] = obs, action
        row[-obs_dim - 3 + self.in_use], row[-obs_dim - 1], row[-obs_dim:] = reward, terminated, next_obs
        self.added += 1

    def sample(self, rng: np.random.Generator, size: int, device: torch.device | str = "cpu") -> Experience:
        """`size` transitions, uniform with replacement."""
        obs_dim, action_dim = self.dims
        numbers = self.added - 1 - rng.integers(len(self), size=size)
        rows = torch.from_numpy(self.rows[numbers % len(self.rows)]).to(device)
        obs, actions, rewards, terminated, next_obs = rows.split([obs_dim, action_dim, 2, 1, obs_dim], 1)
        return Experience(obs, actions, rewards[:, self.in_use], terminated.squeeze(1), next_obs)

    def relabel(self, reward: RewardFunction) -> None:
        """What `reward` says about everything that is remembered becomes its reward; RoboprefError if that is not finite."""
        obs_dim, action_dim = self.dims
        first, spare = self.added - len(self), 1 - self.in_use
        for start in range(first, self.added, RELABEL_CHUNK):
            numbers = np.arange(start, min(start + RELABEL_CHUNK, self.added)) % len(self.rows)
            rows = self.rows[numbers]
            obs, actions, next_obs = rows[:, :obs_dim], rows[:, obs_dim : obs_dim + action_dim], rows[:, -obs_dim:]
            said = np.asarray(reward(obs, actions, next_obs))
            if not np.isfinite(said).all():
                raise RoboprefError(f"step {start}: the reward is not finite; look at the reward function")
            self.rows[numbers, -obs_dim - 3 + spare] = said
        self.in_use = spare

    def segments(self, starts: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Observations (N, K, do) and actions (N, K, da) of `steps` transitions from each number in `starts` (N,) on."""
        obs_dim, action_dim = self.dims
        rows = self.rows[(np.asarray(starts)[:, None] + np.arange(steps)) % len(self.rows)]
        return rows[..., :obs_dim], rows[..., obs_dim : obs_dim + action_dim]

    def witnesses(self) -> np.ndarray:
        """Numbers of some rows of the file, evenly spread over what is remembered, the last one among them."""
        first = self.added - len(self)
        return np.linspace(self.added - 1, first, min(WITNESSES, len(self))).round().astype(int) % len(self.rows)

    def witnessed(self) -> np.ndarray:
        """What is in these rows but for the rewards, of which one kind changes between checkpoints, (W, 2 do + da)."""
        obs_dim, action_dim = self.dims
        rows = self.rows[self.witnesses()]
        return np.concatenate([rows[:, : obs_dim + action_dim], rows[:, -obs_dim:]], 1)

    def digest(self) -> Tensor:
        """The sha256 of what is remembered, but for the reward that is not in use, (32,) uint8."""
        obs_dim, _ = self.dims
        return digest_rows(self.rows, self.numbers(), self.rows.shape[1] - obs_dim - 2 - self.in_use)

    def numbers(self) -> np.ndarray:
        """Numbers of the rows of the file that are remembered, oldest first."""
        return np.arange(self.added - len(self), self.added) % len(self.rows)

    def flush(self) -> None:
        """Everything that was added to the disk."""
        self.rows.flush()


def created(path: Path, temp: Path, dtype: DTypeLike, shape: tuple[int, int], used: int) -> np.memmap:
    """A new memory map in `temp`, which will be called `path`, with room on the disk for the `used` first rows."""
    with room(path, shape, dtype, used):
        return new_array_file(temp, dtype, shape, used)


def opened(path: Path, used: int) -> np.memmap:
    """The memory map of a file that is there, likewise."""
    try:
        rows = read_array(path, "r+")
        assert isinstance(rows, np.memmap)
    except ValueError as error:
        raise RoboprefError(f"{path} is damaged ({error}): restore it, or begin anew with overwrite=true") from error
    with room(path, rows.shape, rows.dtype, used):
        reserve(path, rows, used)
    return rows


def digest_rows(rows: np.ndarray, numbers: np.ndarray, without: int | None = None) -> Tensor:
    """The sha256 of the rows `numbers` (N,) of an array, but for one column, (32,) uint8."""
    total = hashlib.sha256()
    for start in range(0, len(numbers), RELABEL_CHUNK):
        some = rows[numbers[start : start + RELABEL_CHUNK]]
        if without is not None:
            some[:, without] = 0
        total.update(some.tobytes())
    return torch.frombuffer(bytearray(total.digest()), dtype=torch.uint8)


def check_digest(found: Tensor, kept: Tensor | None, path: Path) -> None:
    """RoboprefError naming the file at `path` where its digest is not the one that the checkpoint kept; older ones kept none."""
    if kept is not None and not skips_digests() and not torch.equal(found, kept):
        raise RoboprefError(
            f"{path}: its bytes have changed since the checkpoint of this run: restore it, or begin anew with overwrite=true, or "
            f"{ANYWAY}"
        )


def check_witnesses(found: np.ndarray, kept: Tensor | None, path: Path) -> None:
    """RoboprefError naming the file at `path` where its rows are not those that the checkpoint kept; older ones kept none."""
    if kept is not None and not np.array_equal(found, kept.numpy()):
        raise RoboprefError(
            f"{path} does not hold what the checkpoint of this run goes on from: restore it, or begin anew with overwrite=true"
        )


@contextmanager
def room(path: Path, shape: tuple[int, ...], dtype: DTypeLike, used: int) -> Iterator[None]:
    """RoboprefError that says how much is needed, how much is free and what helps, where the disk turns out to be full."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        needed, free = used * shape[1] * np.dtype(dtype).itemsize, shutil.disk_usage(path.parent).free
        raise RoboprefError(
            f"{path} needs {bytes_text(needed)} on the disk for {used} transitions of {shape[1]} numbers, and "
            f"{bytes_text(free)} are free: free some space, choose another out=, or lower frames= or capacity="
        ) from error


def bytes_text(count: int) -> str:
    """A number of bytes, for readers."""
    return f"{count / 2**10:.1f} KiB" if count < 2**20 else f"{count / 2**20:.1f} MiB"
