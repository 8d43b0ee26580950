"""Offline data as tensors: the transitions of an episode dataset, and the labelled segment pairs that point into them.

Comes from datasets.episodes and datasets.preferences; goes to bc.py, iql.py, ipl.py and cpl.py.  Observations are held once, in
rows; a transition knows its row and the next row is its next observation.  In them no transition is terminal: Meta-World's
episodes end by time, so values bootstrap through every end.  Of D4RL's data, offline.py makes transitions that may be.

Axes: R observation rows, M transitions, P pairs, S members, B batch, K steps drawn from a segment, do and da as elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robopref.configs.errors import RoboprefError
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.preferences import labelled, read_preferences
from robopref.preference.members import each_once

MIN_STD = 1e-2  # of a constant observation; dividing by less would blow up what was constant in the data but moves later


class EpisodeArrays(Protocol):
    """What replay reads of an embodied.rollout.Episode."""

    @property
    def observations(self) -> np.ndarray:
        """(T + 1, do)."""

    @property
    def actions(self) -> np.ndarray:
        """(T, da) in [-1, 1]."""

    @property
    def rewards(self) -> np.ndarray:
        """(T,)."""


@dataclass(frozen=True)
class Normaliser:
    """(x - mean) / std for observations; mean, std: (do,) float32.  Saved with every model that was trained behind it."""

    mean: Tensor
    std: Tensor

    def __call__(self, obs: Tensor) -> Tensor:
        """Raw observations (..., do) -> normalised ones."""
        return (obs - self.mean) / self.std


class Batch(NamedTuple):
    """Transitions of S members."""

    obs: Tensor  # (S, B, do) normalised
    actions: Tensor  # (S, B, da)
    next_obs: Tensor  # (S, B, do) normalised


@dataclass(frozen=True)
class Transitions:
    """Every transition of a dataset, episode after episode."""

    obs: Tensor  # (R, do) float32, normalised
    actions: Tensor  # (M, da) float32
    rewards: Tensor  # (M,) float32, the environment's own
    rows: Tensor  # (M,) int64, row of a transition's observation; the next observation is one row further
    first: np.ndarray  # (episodes + 1,) int64, number of each episode's first transition; the last entry is M
    normaliser: Normaliser
    terminals: Tensor | None = None  # (M,) float32, 1 where the value of what comes next is nothing; None: nowhere

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def dims(self) -> tuple[int, int]:
        """(do, da)."""
        return self.obs.shape[1], self.actions.shape[1]

    def batch(self, numbers: Tensor) -> Batch:
        """The transitions of these numbers (S, B)."""
        rows = taken(self.rows, numbers)
        return Batch(taken(self.obs, rows), taken(self.actions, numbers), taken(self.obs, rows + 1))

    def state_action(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """obs (..., do) and actions (..., da) of these numbers."""
        return taken(self.obs, taken(self.rows, numbers)), taken(self.actions, numbers)


def taken(values: Tensor, numbers: Tensor) -> Tensor:
    """values[numbers], (..., *) for values (N, *) and numbers (...); torch's own indexing takes three times as long."""
    return values.index_select(0, numbers.reshape(-1)).view(*numbers.shape, *values.shape[1:])


class PairBatch(NamedTuple):
    """K steps of each segment; `sum(weight * x)` over K estimates the sum of x over the whole segment."""

    a: Tensor  # (S, B, K) int64, transition numbers
    b: Tensor  # (S, B, K)
    weight_a: Tensor  # (S, B, 1)
    weight_b: Tensor  # (S, B, 1)
    label: Tensor  # (S, B) P(b preferred)


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs of segments of one dataset."""

    start: Tensor  # (P, 2) int64, first transition number of a and b
    length: Tensor  # (P, 2) int64, steps
    label: Tensor  # (P,) float32, P(b preferred) in [0, 1]; 0.5 is a tie

    def __len__(self) -> int:
        return len(self.label)

    def sample(self, rngs: Sequence[np.random.Generator], size: int, steps: int = 0) -> PairBatch:
        """`size` pairs a member, with replacement, and `steps` steps of each segment (0: all), spread evenly at a random phase.

        With steps equal to the length every step comes once, with weight 1.  Fewer cost less and still see the whole
        segment (ours; the CPL and IPL repositories cut a random window, which need not contain what the label is about).
        """
        device = self.label.device
        chosen = torch.from_numpy(np.stack([rng.integers(len(self), size=size) for rng in rngs])).to(device)
        phases = np.stack([rng.random((size, 2, 1)) for rng in rngs])
        steps = steps or int(self.length.max())
        length = self.length[chosen].unsqueeze(-1)  # (S, B, 2, 1)
        spread = (torch.arange(steps, device=device) + torch.from_numpy(phases).to(device)) * (length / steps)
        # A phase close to 1 may round up to the length itself.
        numbers = self.start[chosen].unsqueeze(-1) + spread.long().minimum(length - 1)  # (S, B, 2, K)
        weight = length / steps
        return PairBatch(numbers[:, :, 0], numbers[:, :, 1], weight[:, :, 0], weight[:, :, 1], self.label[chosen])

    def transitions(self) -> Tensor:
        """Sorted numbers (U,) of the transitions that lie in any segment, each once."""
        ranges = [
            torch.arange(int(start), int(start + length), device=self.label.device)
            for start, length in zip(self.start.flatten(), self.length.flatten(), strict=True)
        ]
        return torch.cat(ranges).unique()


def sample_numbers(rngs: Sequence[np.random.Generator], count: int, size: int, device: torch.device) -> Tensor:
    """`size` numbers below `count` a member, uniform with replacement: (S, size) int64."""
    return torch.from_numpy(each_once(rngs, lambda rng: rng.integers(count, size=size))).to(device)


def load_transitions(path: str | Path, normalise: bool = True, device: torch.device | str = "cpu") -> Transitions:
    """All episodes of the dataset folder `path`; RoboprefError when one is damaged or holds NaN."""
    store = EpisodeStore(Path(path))
    return stack_episodes((store.episode(i) for i in range(len(store))), normalise, device, where=str(path))


def stack_episodes(
    episodes: Iterable[EpisodeArrays],
    normalise: bool = True,
    device: torch.device | str = "cpu",
    where: str = "the given episodes",
) -> Transitions:
    """Transitions of `episodes`; RoboprefError naming `where` for NaN, actions outside [-1, 1] or no episode at all."""
    obs: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    rewards: list[np.ndarray] = []
    for number, episode in enumerate(episodes):
        for name in ("observations", "actions", "rewards"):
            if not np.isfinite(getattr(episode, name)).all():
                raise RoboprefError(f"{where}, episode {number}: {name} hold NaN or infinity; collect it again")
        if np.abs(episode.actions).max() > 1 + 1e-6:
            raise RoboprefError(
                f"{where}, episode {number}: actions reach {np.abs(episode.actions).max():.3g}, but policies act in [-1, 1]; "
                "rescale them when collecting"
            )
        widths = episode.observations.shape[1:], episode.actions.shape[1:]
        if obs and widths != (obs[0].shape[1:], actions[0].shape[1:]):
            raise RoboprefError(
                f"{where}, episode {number}: observations and actions of {widths[0]} and {widths[1]} numbers, the others have "
                f"{obs[0].shape[1:]} and {actions[0].shape[1:]}; collect it again"
            )
        obs.append(np.asarray(episode.observations, np.float32))
        actions.append(np.asarray(episode.actions, np.float32))
        rewards.append(np.asarray(episode.rewards, np.float32))
    if not obs:
        raise RoboprefError(f"{where}: no episode to learn from; collect some first (`robopref collect`)")
    lengths = np.array([len(part) for part in actions])
    # Episode e has lengths[e] + 1 rows, so its transitions lie e rows further on than their numbers.
    rows = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)
    stacked = torch.from_numpy(np.concatenate(obs)).to(device)
    normaliser = fit_normaliser(stacked) if normalise else Normaliser(torch.zeros_like(stacked[0]), torch.ones_like(stacked[0]))
    return Transitions(
        obs=normaliser(stacked),
        actions=torch.from_numpy(np.concatenate(actions)).to(device),
        rewards=torch.from_numpy(np.concatenate(rewards)).to(device),
        rows=torch.from_numpy(rows).to(device),
        first=np.concatenate([[0], np.cumsum(lengths)]),
        normaliser=normaliser,
    )


def fit_normaliser(obs: Tensor) -> Normaliser:
    """Mean and standard deviation of obs (R, do); a dimension that hardly moves gets MIN_STD (Meta-World units are metres)."""
    return Normaliser(obs.mean(0), obs.std(0, correction=0).clamp(min=MIN_STD))


def load_pairs(path: str | Path, data: Transitions, data_path: str | Path, device: torch.device | str = "cpu") -> Pairs:
    """The labelled pairs of the preferences file `path` about the dataset `data`, which was read from `data_path`."""
    return stack_pairs(read_preferences(Path(path)), data.first, device, where=str(path), data_path=str(data_path))


def stack_pairs(
    preferences: pd.DataFrame,
    first: np.ndarray,
    device: torch.device | str = "cpu",
    where: str = "the given preferences",
    data_path: str = "the given episodes",
) -> Pairs:
    """Pairs from the columns episode_*, start_*, stop_* and label; first: as in Transitions.

    Pairs on which the labeller abstained are no pairs here.  RoboprefError naming `where` when there is no other, a label is
    missing or outside [0, 1], or a segment is not in the data.
    """
    preferences = labelled(preferences)
    if preferences.empty:
        raise RoboprefError(f"{where}: no labelled pair in it; label some first (`robopref annotate`)")
    label = preferences["label"].to_numpy(np.float32)
    if not ((label >= 0) & (label <= 1)).all():
        bad = preferences["label"][~((label >= 0) & (label <= 1))].iloc[0]
        raise RoboprefError(f"{where}: label {bad} is not in [0, 1]; finish the annotation, or drop these pairs")
    starts, lengths = [], []
    for side in "ab":
        segments = preferences[[f"episode_{side}", f"start_{side}", f"stop_{side}"]]
        if segments.isna().to_numpy().any():
            raise RoboprefError(f"{where}: it labels video files; policies learn from episodes, so annotate an episode dataset")
        episode, start, stop = segments.to_numpy(np.int64).T
        known = (episode >= 0) & (episode < len(first) - 1)
        if not known.all():
            raise RoboprefError(
                f"{where}: episode {episode[~known][0]} is not in {data_path} (0 to {len(first) - 2}); "
                "give the dataset that was annotated, or annotate this one"
            )
        inside = (start >= 0) & (start < stop) & (stop <= np.diff(first)[episode])
        if not inside.all():
            row = int(np.flatnonzero(~inside)[0])
            raise RoboprefError(
                f"{where}: steps {start[row]} to {stop[row]} of episode {episode[row]} are not in {data_path}, whose episode has "
                f"{np.diff(first)[episode[row]]}; give the dataset that was annotated, or annotate this one"
            )
        starts.append(first[episode] + start)
        lengths.append(stop - start)
    return Pairs(
        torch.from_numpy(np.stack(starts, 1)).to(device),
        torch.from_numpy(np.stack(lengths, 1)).to(device),
        torch.from_numpy(label).to(device),
    )
