"""Rewards on the scale that offline learners' settings were made for; the last step before IQL or TD3+BC.

Axes: M transitions.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.imitation import RewardScale
from robopref.datasets.offline import OfflineData


def scale_rewards(rewards: np.ndarray, data: OfflineData, kind: RewardScale) -> np.ndarray:
    """(M,) float32, for rewards (M,) of any labeller.

    none: as they are; what SEABO's code does but for AntMaze.
    return_range: times 1000 / (highest - lowest return of an episode under these rewards); IQL's code for locomotion, and OTR's.
    antmaze: minus 1; IQL's code for AntMaze, and SEABO's (there minus alpha, which is 1).
    otr_antmaze: return_range, then minus 2; OTR's code for AntMaze.
    RoboprefError for another kind, and where all returns are equal and so have no range.
    """
    if kind not in get_args(RewardScale):
        raise RoboprefError(
            f"rewards cannot be scaled by {kind!r}: {', '.join(get_args(RewardScale))}.{nearest(kind, get_args(RewardScale))}"
        )
    if rewards.shape != (len(data),):
        raise RoboprefError(f"{rewards.shape} rewards for the {len(data)} transitions of {data.name}")
    scaled = rewards.astype(np.float64)
    if kind in ("return_range", "otr_antmaze"):
        returns = data.returns_of(scaled)
        span = returns.max() - returns.min()
        if not span > 0:
            raise RoboprefError(f"every episode of {data.name} has a return of {returns[0]:g} under these rewards: scale by none")
        scaled *= 1000.0 / span
    scaled -= {"antmaze": 1.0, "otr_antmaze": 2.0}.get(kind, 0.0)
    return scaled.astype(np.float32)
