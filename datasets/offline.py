"""What offline learners are given: the episodes of one data set, one after the other, as flat arrays.

Comes from datasets.d4rl (HDF5, Minari); goes to rewards that label it (preference/imitation, preference/prof) and to learners of
policies.  Observations are held once, in rows, as in policies/replay.py: an episode of T steps has T + 1.

Axes: E episodes, M transitions, R = M + E observation rows, do and da numbers in an observation and an action.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robopref.configs.errors import RoboprefError, one_line

TOLD = 5  # datasets that an error names
REPAIRED = "repaired"  # of facts: what was wrong in the file and was put right when it was read
LOST, LOST_REWARD = "dropped_steps", "dropped_reward"  # of facts


def refuse_parent(folder: Path, *patterns: str) -> None:
    """RoboprefError naming the datasets in a folder that is none itself; nothing where there are none.

    patterns: of files that are datasets of their own.
    """
    files = {item.parent for item in folder.glob("*/main_data.hdf5")} | {
        item.parents[1] for item in folder.glob("*/data/main_data.hdf5")
    }
    found = sorted(files | {item for pattern in patterns for item in folder.glob(pattern)})
    found = [item for item in found if not item.name.startswith(".")]  # what is being written
    if found:
        more = ", ..." if len(found) > TOLD else ""
        raise RoboprefError(f"{folder} holds datasets: {', '.join(map(str, found[:TOLD]))}{more}; name one")


@dataclass(frozen=True)
class ReferenceScore:
    """Returns that are 0 and 1 on a data set's normalised scale: those of a random policy and of an expert."""

    minimum: float
    maximum: float

    def __call__(self, returns: np.ndarray) -> np.ndarray:
        """(return - minimum) / (maximum - minimum); papers print 100 times that."""
        return (np.asarray(returns, np.float64) - self.minimum) / (self.maximum - self.minimum)


@dataclass(frozen=True)
class OfflineData:
    """All episodes of a data set."""

    observations: np.ndarray  # (R, do) float32
    actions: np.ndarray  # (M, da) float32, as recorded: in the units of their world, until `datasets.d4rl.clipped`
    rewards: np.ndarray  # (M,) float32, the environment's own
    first: np.ndarray  # (E + 1,) int64, number of each episode's first transition; the last entry is M
    terminated: np.ndarray  # (E,) bool, whether an episode ended for good; else it was cut by time, or the file ends in it
    name: str  # in messages and tables
    env_id: str | None = None  # as `robopref evaluate` takes it: mujoco/hopper, adroit/door
    score: ReferenceScore | None = None
    facts: dict[str, str] = field(default_factory=dict)  # what the file says of how it was made, and what was repaired in it
    box: tuple[np.ndarray, np.ndarray] | None = None  # (da,) lowest and highest action of their world; None: not said
    last_rewards: np.ndarray | None = None  # (E,) float32, of last steps that nothing follows, so that they are no transition

    def __post_init__(self) -> None:
        episodes, transitions = len(self.first) - 1, len(self.actions)
        shapes = {
            "observations": (transitions + episodes, *self.observations.shape[1:]) == self.observations.shape,
            "rewards": self.rewards.shape == (transitions,),
            "terminated": self.terminated.shape == (episodes,),
            "first": episodes > 0 and self.first[0] == 0 and self.first[-1] == transitions and (np.diff(self.first) > 0).all(),
            "last_rewards": self.last_rewards is None or self.last_rewards.shape == (episodes,),
            "box": self.box is None or all(bound.shape == self.actions.shape[1:] for bound in self.box),
        }
        wrong = [name for name, right in shapes.items() if not right]
        if wrong:
            raise RoboprefError(f"{self.name}: {' and '.join(wrong)} do not fit {transitions} actions in {episodes} episodes")
        for name in ("observations", "actions", "rewards"):
            check_finite(getattr(self, name), f"{self.name}: {name}")
        if self.box is not None and not (self.box[0] < self.box[1]).all():
            raise RoboprefError(
                f"{self.name}: the box of its actions is {said(self.box)}: write bounds that rise in every number"
            )

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.first) - 1

    @property
    def dims(self) -> tuple[int, int]:
        """(do, da)."""
        return self.observations.shape[1], self.actions.shape[1]

    @cached_property
    def rows(self) -> np.ndarray:
        """(M,) int64, the row of each transition's observation; the next observation is one row further."""
        return np.arange(len(self)) + np.repeat(np.arange(self.episodes), np.diff(self.first))

    @property
    def obs(self) -> np.ndarray:
        """(M, do), a copy."""
        return self.observations[self.rows]

    @property
    def next_obs(self) -> np.ndarray:
        """(M, do), a copy."""
        return self.observations[self.rows + 1]

    @property
    def terminals(self) -> np.ndarray:
        """(M,) bool, true where the value of what comes next is nothing."""
        ends = np.zeros(len(self), bool)
        ends[self.first[1:] - 1] = self.terminated
        return ends

    @property
    def lengths(self) -> np.ndarray:
        """(E,) steps."""
        return np.diff(self.first)

    @property
    def returns(self) -> np.ndarray:
        """(E,) float64, sums of the environment's rewards as recorded, that of a last step which is no transition included."""
        return self.returns_of(self.rewards) + (0.0 if self.last_rewards is None else self.last_rewards)

    def returns_of(self, values: np.ndarray) -> np.ndarray:
        """(E,) float64, sums of `values` (M,), such as other rewards, over episodes."""
        sums: np.ndarray = np.add.reduceat(values.astype(np.float64), self.first[:-1])
        return sums

    def take(self, episodes: Iterable[int]) -> OfflineData:
        """These episodes, in this order."""
        chosen = np.fromiter(episodes, np.int64)
        if not ((chosen >= 0) & (chosen < self.episodes)).all() or not len(chosen):
            raise RoboprefError(f"{self.name} holds episodes 0 to {self.episodes - 1}, asked for {chosen.tolist()}")
        numbers = np.concatenate([np.arange(self.first[e], self.first[e + 1]) for e in chosen])
        rows = np.concatenate([np.arange(self.first[e] + e, self.first[e + 1] + e + 1) for e in chosen])
        return replace(
            self,
            observations=self.observations[rows],
            actions=self.actions[numbers],
            rewards=self.rewards[numbers],
            first=np.concatenate([[0], np.cumsum(self.lengths[chosen])]),
            terminated=self.terminated[chosen],
            last_rewards=None if self.last_rewards is None else self.last_rewards[chosen],
        )


def scale_of(minimum: Any, maximum: Any, where: str | Path) -> ReferenceScore:
    """The scale that a file tells of; RoboprefError naming `where` where its ends are no numbers, or in the other order."""
    try:
        low, high = (float(value) for value in (minimum, maximum))
    except (TypeError, ValueError, OverflowError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        raise RoboprefError(
            f"{where}: its reference returns {shorten(minimum)} and {shorten(maximum)} are no numbers that rise: get it again"
        )
    return ReferenceScore(low, high)


def shorten(value: Any) -> str:
    """A value out of a file, for an error."""
    return one_line(ValueError(repr(value)))


def check_words(told: dict[str, Any]) -> None:
    """ValueError where what our own files tell of a set is of another kind.

    told: name, env_id, facts, joined (numbers of rows) and last_rewards, those that there are.
    """
    facts, rewards = told.get("facts", {}), told.get("last_rewards")
    kinds = {
        "name": isinstance(told.get("name", ""), str),
        "env_id": isinstance(told.get("env_id"), str | None),
        "facts": isinstance(facts, dict) and all(isinstance(value, str) for value in facts.values()),
        "joined": all(type(row) is int for row in told.get("joined", ())),
        "last_rewards": rewards is None or (isinstance(rewards, list) and all(type(value) in (int, float) for value in rewards)),
    }
    wrong = [name for name, right in kinds.items() if not right]
    if not wrong and not math.isfinite(float(facts.get(LOST_REWARD, 0))):
        wrong = ["facts"]
    if wrong:
        raise ValueError(f"{wrong[0]} is of another kind")


def check_finite(values: np.ndarray, what: str) -> None:
    """RoboprefError, beginning with `what`, that names the first row of values (N, ...) with NaN or infinity."""
    finite = np.isfinite(values)
    if not finite.all():
        row = int((~finite.reshape(len(values), -1).all(1)).argmax())
        raise RoboprefError(f"{what} hold NaN or infinity, first in row {row}: leave that episode out, or get the file again")


def said(box: tuple[np.ndarray, np.ndarray]) -> str:
    """Bounds in words: [-2, 2] where they are those of every number of an action."""
    low, high = box
    if (low == low[0]).all() and (high == high[0]).all():
        return f"[{low[0]:g}, {high[0]:g}]"
    return " x ".join(f"[{a:g}, {b:g}]" for a, b in zip(low, high, strict=True))
