"""How well a VLP orders clips of given tasks: ITP and IVP accuracy and ILP loss, the paper's generalisation measures.

Comes from frame banks of tasks (seen or not) and a trained scorer; goes to the report.  Chance is 0.5, and the ILP loss
of perfect indifference ln 2 = 0.693.

Axes: B tuples, T frames after the opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit

from robopref.configs.vlp import OrdersConfig
from robopref.datasets.clips import FrameBank
from robopref.preference.features import cached_features
from robopref.preference.orders import OrderSampler
from robopref.preference.vlp import VLPScorer


def generalisation(
    scorer: VLPScorer,
    bank: FrameBank,
    task: str,
    others: Sequence[str],
    cache: Path,
    *,
    part: str = "train",
    tuples: int = 256,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracies on `tuples` whole-episode orders of `task`, the other clips and foreign instructions taken from `others`.

    part: which wordings, "train" or "heldout" (never used in training).  bank: must hold `task` and `others`.
    """
    features = cached_features(bank, scorer.backbone, cache)
    sampler = OrderSampler(bank.index, [task, *others], OrdersConfig(segment_share=0.0), part)
    drawn = sampler.draw(tuples, np.random.default_rng(seed), own_task=task)

    def scores(rows: np.ndarray, sentences: list[str]) -> np.ndarray:
        clips = features[rows]  # (B, 1 + T, P, D)
        return scorer.score_features(clips.reshape(len(clips), -1, clips.shape[-1]), sentences)

    a, b, other = (scores(rows, drawn.own) for rows in (drawn.a, drawn.b, drawn.other))
    indifferent = expit(scores(drawn.b, drawn.foreign) - scores(drawn.a, drawn.foreign))
    pairs = {
        "expert_over_medium": ("expert", "medium"),
        "expert_over_random": ("expert", "random"),
        "medium_over_random": ("medium", "random"),
    }
    right = (b > a) == (drawn.label > 0.5)
    result = {
        "itp_accuracy": float(right.mean()),
        "ivp_accuracy": float(np.concatenate([a > other, b > other]).mean()),
        "ilp_loss": float(-0.5 * (np.log(indifferent) + np.log1p(-indifferent)).mean()),
        "tuples": float(tuples),
    }
    for name, levels in pairs.items():
        mine = np.array([set(drawn_levels) == set(levels) for drawn_levels in drawn.levels])
        if mine.any():
            result[name] = float(right[mine].mean())
    return result
