"""Who says which clip is better: scorers of single clips, labels from their scores, and labels that people wrote down.

VLP (preference/vlp.py) is a Scorer; the others here are its references, so that all run through the same annotation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from robopref.configs.errors import RoboprefError
from robopref.preference.pairs_file import read_pairs


class Scorer(Protocol):
    """f(v | l): how well each clip does what its instruction says."""

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        """clips (N, 1 + T, H, W, 3) uint8, one instruction a clip -> (N,) float."""


class Constant:
    """Knows nothing: every clip scores the same, so every pair is a tie."""

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        """(N,) zeros."""
        return np.zeros(len(clips))


class ScriptedReturn:
    """Knows everything: the true return of each clip, whatever the instruction."""

    def __init__(self, returns: np.ndarray) -> None:
        """returns (N,): sums of the environment's rewards, in the order of the clips that will be scored."""
        self.returns = np.asarray(returns, np.float64)
        if not np.isfinite(self.returns).all():
            raise RoboprefError("A true return is NaN or infinite; collect the episodes again.")

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        """(N,) the returns; the pixels are not looked at."""
        if len(clips) != len(self.returns):
            raise ValueError(f"{len(clips)} clips, but {len(self.returns)} returns")
        return self.returns


class HumanFile:
    """Labels that people gave: the columns of a pairs file (preference/pairs_file.py) and `label`, P(b preferred)."""

    def __init__(self, path: Path) -> None:
        """Read CSV or Parquet; `RoboprefError` when it is unreadable or a label is missing or outside [0, 1]."""
        self.path = Path(path)
        table = read_pairs(self.path)
        if "label" not in table:
            raise RoboprefError(f"{self.path}: it has no column `label`, P(b preferred) in [0, 1].")
        label = pd.to_numeric(table["label"], errors="coerce")
        wrong = ~label.between(0.0, 1.0)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise RoboprefError(f"{self.path}: label {str(table['label'].iloc[row])!r} in row {row + 1} is not in [0, 1].")
        self._labels: dict[tuple[object, object], float] = {}
        for a, b, value in zip(_clips(table, "a"), _clips(table, "b"), label, strict=True):
            self._labels[a, b] = float(value)
            self._labels[b, a] = 1.0 - float(value)

    def label(self, pairs: pd.DataFrame) -> np.ndarray:
        """Labels (N,) of the pairs of a table, whichever way round they were labelled; one without a label raises."""
        keys = list(zip(_clips(pairs, "a"), _clips(pairs, "b"), strict=True))
        unknown = [key for key in keys if key not in self._labels]
        if unknown:
            raise RoboprefError(f"{self.path}: {len(unknown)} pairs have no label in it, the first is {unknown[0]}; add them.")
        return np.array([self._labels[key] for key in keys])


def labels_from_scores(score_a: np.ndarray, score_b: np.ndarray, hard: bool = False, tie_margin: float = 0.0) -> np.ndarray:
    """P(b preferred) (N,) from scores (N,): sigmoid(score_b - score_a) [VLP, Eq. 2].

    hard: 1, 0, or 0.5 where the scores are no further apart than tie_margin.  Raises `RoboprefError` on a score that is
    not finite.
    """
    difference = np.asarray(score_b, np.float64) - np.asarray(score_a, np.float64)
    if not np.isfinite(difference).all():
        raise RoboprefError(f"{(~np.isfinite(difference)).sum()} pairs have a score that is not finite; train the scorer again.")
    if not hard:
        return 0.5 * (1.0 + np.tanh(0.5 * difference))  # the sigmoid, without overflow
    return np.where(np.abs(difference) <= tie_margin, 0.5, (difference > 0).astype(np.float64))


def _clips(table: pd.DataFrame, side: str) -> list[object]:
    """What identifies the clip of one side in every row: (episode, start, stop) or the video's path."""
    if f"video_{side}" in table and table[f"video_{side}"].notna().all():
        return [str(Path(name)) for name in table[f"video_{side}"]]
    columns = (table[f"{name}_{side}"].astype("int64") for name in ("episode", "start", "stop"))
    return [tuple(int(value) for value in row) for row in zip(*columns, strict=True)]
