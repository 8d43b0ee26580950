"""Who says which clip is better: scorers of single clips, labels from their scores, and labels that people wrote down.

VLP (preference/vlp.py) is a Scorer; the others here are its references, so that all run through the same annotation.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from robopref.configs.errors import RoboprefError
from robopref.preference.pairs_file import as_flags, as_numbers, clips_of, quoted, read_pairs


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
        label = as_numbers(table["label"])
        wrong = ~((label >= 0.0) & (label <= 1.0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise RoboprefError(f"{self.path}: label {quoted(table['label'].iloc[row])} in row {row + 1} is not in [0, 1].")
        if "abstained" in table:  # a preferences file with pairs that nobody has labelled yet
            kept = ~as_flags(table["abstained"], self.path)
            table, label = table[kept], label[kept]
        self._labels: dict[tuple[object, object], list[float]] = defaultdict(list)
        for a, b, value in zip(clips_of(table, "a"), clips_of(table, "b"), label, strict=True):
            self._labels[a, b].append(float(value))
            self._labels[b, a].append(1.0 - float(value))

    def label(self, pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Rows (N,) of a table of pairs and a label (N,) for each; a pair without a label raises.

        A pair that several people labelled has as many labels, contradicting ones included, and comes as often; where the table
        lists it more than once, its first row has the first label, and its last row all that are left.  Labels are turned round
        where a pair was labelled the other way round.
        """
        keys = list(zip(clips_of(pairs, "a"), clips_of(pairs, "b"), strict=True))
        rows_of: dict[frozenset[object], list[int]] = defaultdict(list)
        for row, key in enumerate(keys):
            rows_of[frozenset(key)].append(row)
        last = {rows[-1] for rows in rows_of.values()}
        place = {row: number for rows in rows_of.values() for number, row in enumerate(rows)}
        given = [self._labels.get(key, [])[place[row] :][: None if row in last else 1] for row, key in enumerate(keys)]
        unknown = [row for row, labels in enumerate(given) if not labels]
        if unknown:
            first = keys[unknown[0]]
            if isinstance(first[0], Path):
                first = tuple(pairs[name].iloc[unknown[0]] for name in ("video_a", "video_b"))
            raise RoboprefError(f"{self.path}: {len(unknown)} pairs have no label in it, the first is {first}; add them.")
        return np.repeat(np.arange(len(keys)), [len(labels) for labels in given]), np.concatenate(given)


def probabilities(score_a: np.ndarray, score_b: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """P(b preferred) of every member (N, M): sigmoid((score_b - score_a) / temperature) [VLP, Eq. 2 at temperature 1].

    Scores are (N, M) of M members, or (N,) of one.  Raises `RoboprefError` on one that is not finite.
    """
    return 0.5 * (1.0 + np.tanh(0.5 * _differences(score_a, score_b) / temperature))  # the sigmoid, without overflow


def log_odds(score_a: np.ndarray, score_b: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """log P/(1 - P), (N,), of P, the mean over members of their `probabilities`; scores as there.

    Of one member that is its difference of scores over the temperature.  Has the sign of P - 0.5 and does not saturate.
    """
    logit = _differences(score_a, score_b) / temperature
    if logit.shape[1] == 1:  # the same, without rounding
        return logit[:, 0]
    for_b, for_a = (-np.logaddexp(0.0, -side) for side in (logit, -logit))  # the logarithms of sigmoid
    return np.logaddexp.reduce(for_b, axis=1) - np.logaddexp.reduce(for_a, axis=1)


def labels_from_scores(
    score_a: np.ndarray, score_b: np.ndarray, hard: bool = False, tie_margin: float = 0.0, temperature: float = 1.0
) -> np.ndarray:
    """P(b preferred) (N,) from scores (N, M) of M members, or (N,) of one: the mean of their `probabilities`.

    Each member's is VLP's Eq. 2, their mean is ours [as in deep ensembles: Lakshminarayanan et al., NeurIPS 2017].
    hard: 1, 0, or 0.5 where temperature times |log-odds|, of one member the distance of its scores, is at most tie_margin.
    """
    if not hard:
        return probabilities(score_a, score_b, temperature).mean(axis=1)
    lean = temperature * log_odds(score_a, score_b, temperature)
    return np.where(np.abs(lean) <= tie_margin, 0.5, (lean > 0).astype(np.float64))


def disagreement(score_a: np.ndarray, score_b: np.ndarray) -> np.ndarray:
    """Share of the members against the majority, (N,) from 0 to 0.5; a member with equal scores is half on either side [ours].

    Not the standard deviation of their probabilities: that is large where all are sure, and small where none is (docs/vlp.md).
    """
    votes = 0.5 + 0.5 * np.sign(_differences(score_a, score_b))
    for_b, members = votes.sum(axis=1), votes.shape[1]
    return np.minimum(for_b, members - for_b) / members  # of counts, so that equal shares are equal to the bit


def least_sure(share: float, logit: np.ndarray, against: np.ndarray | None = None) -> np.ndarray:
    """Which pairs to abstain on, (N,) bool: at most `share` of them, those of the largest `disagreement` (N,), if it is given.

    Equal disagreement, or none given: the smallest |`log_odds`| (N,), then the first.
    """
    order = np.lexsort((np.abs(logit), np.zeros(len(logit)) if against is None else -against))
    chosen = np.zeros(len(logit), bool)
    chosen[order[: int(share * len(order) + 1e-9)]] = True  # 0.29 of 100 is 28.999999999999996
    return chosen


def _differences(score_a: np.ndarray, score_b: np.ndarray) -> np.ndarray:
    """score_b - score_a as (N, M)."""
    difference = np.asarray(score_b, np.float64) - np.asarray(score_a, np.float64)
    difference = difference.reshape(len(difference), -1)
    wrong = ~np.isfinite(difference).all(axis=1)
    if wrong.any():
        raise RoboprefError(f"{wrong.sum()} pairs have a score that is not finite; train the scorer again.")
    return difference
