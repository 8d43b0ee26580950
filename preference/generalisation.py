"""How well a scorer orders clips of given tasks: ITP and IVP accuracy and ILP loss, the paper's generalisation measures.

Comes from frame banks of tasks (seen or not) and a scorer, VLP or a baseline; goes to the report and to the table of
preference/compare.py.  Chance is 0.5, and the ILP loss of perfect indifference ln 2 = 0.693.

Axes: B tuples, T frames after the opening.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from robopref.configs.vlp import OrdersConfig
from robopref.datasets.clips import FrameBank, Stacked
from robopref.preference.baselines.motion import HAND, MOTIONS
from robopref.preference.features import FeatureScorer, cached_features
from robopref.preference.orders import OrderSampler

RowScores = Callable[[np.ndarray, list[str]], np.ndarray]
"""Rows of a bank (B, 1 + T), each a clip, and one instruction a clip -> f(v | l), (B,)."""
LEVEL_PAIRS = {
    "expert_over_medium": {"expert", "medium"},
    "expert_over_random": {"expert", "random"},
    "medium_over_random": {"medium", "random"},
}


def generalisation(
    scorer: FeatureScorer,
    bank: FrameBank,
    task: str,
    others: Sequence[str],
    cache: Path,
    *,
    part: str = "train",
    tuples: int = 256,
    seed: int = 0,
) -> dict[str, float]:
    """`order_measures` of a scorer that looks at frames; `cache`: the folder of its features."""
    scores = feature_scores(scorer, cached_features(bank, scorer.backbone, cache))
    return order_measures(scores, bank.index, task, others, part=part, tuples=tuples, seed=seed)


def feature_scores(scorer: FeatureScorer, features: Stacked) -> RowScores:
    """The scores of clips made of the frames whose features are given, (M, P, D)."""

    def scores(rows: np.ndarray, sentences: list[str]) -> np.ndarray:
        clips = features[rows]  # (B, 1 + T, P, D)
        return scorer.score_features(clips.reshape(len(clips), -1, clips.shape[-1]), sentences)

    return scores


def motion_scores(bank: FrameBank, motion: str) -> RowScores:
    """The scores of clips by how the hand moves in them (preference/baselines/motion.py); no sentence is heard."""
    hand, moved = bank.states[:, HAND], MOTIONS[motion]
    return lambda rows, _: moved(hand, rows)


def order_measures(
    scores: RowScores,
    index: pd.DataFrame,
    task: str,
    others: Sequence[str],
    *,
    part: str = "train",
    tuples: int = 256,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracies on `tuples` whole-episode orders of `task`, the other clips and foreign instructions taken from `others`.

    index: of a bank that holds `task` and `others`.  part: which wordings, "train", "heldout" (never used in training) or one
    of embodied/tasks.py's KINDS.  Equal scores are half right.  The ILP loss reads scores as logits; of others it says little.
    """
    sampler = OrderSampler(index, [task, *others], OrdersConfig(segment_share=0.0), part)
    drawn = sampler.draw(tuples, np.random.default_rng(seed), own_task=task)
    a, b, other = (scores(rows, drawn.own) for rows in (drawn.a, drawn.b, drawn.other))
    foreign = scores(drawn.b, drawn.foreign) - scores(drawn.a, drawn.foreign)
    right = (1 + np.sign(b - a) * np.sign(drawn.label - 0.5)) / 2
    result = {
        "itp_accuracy": float(right.mean()),
        "ivp_accuracy": float(((1 + np.sign(np.concatenate([a - other, b - other]))) / 2).mean()),
        # Cross-entropy with 1/2 and 1/2; logaddexp(0, x) is -log sigmoid(-x) without overflow.
        "ilp_loss": float(0.5 * (np.logaddexp(0, foreign) + np.logaddexp(0, -foreign)).mean()),
        "tuples": float(tuples),
    }
    for name, levels in LEVEL_PAIRS.items():
        mine = np.array([set(drawn_levels) == levels for drawn_levels in drawn.levels])
        if mine.any():
            result[name] = float(right[mine].mean())
    return result
