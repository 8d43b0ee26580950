"""UDS: experts keep their rewards, all others get zero (Yu et al. 2022, "How to Leverage Unlabeled Data in Offline RL").

Comes after experts.py; its rewards go to offline learners.  Labelled are the experts' transitions alone.

The paper's: zero for what has no label, where no reward is negative.  Ours: rewards are moved so that the smallest is zero,
which makes that so, and which of the data's transitions are the experts' (experts.matches).  The data's own rewards are never
looked at.
"""

from __future__ import annotations

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.imitation import UDSConfig
from robopref.datasets.offline import OfflineData
from robopref.preference.imitation.experts import matches


def uds_rewards(data: OfflineData, experts: OfflineData, config: UDSConfig | None = None) -> np.ndarray:
    """(M,) float32: the expert's reward less the minimum for transitions that an expert did, 0 for all others.

    RoboprefError when the data lack an expert transition (with_experts adds them) or one has less than the minimum.
    """
    config = config or UDSConfig()
    lost = int((matches(experts, data) < 0).sum())
    if lost:
        raise RoboprefError(
            f"{lost} of the {len(experts)} expert transitions from {experts.name} are not in {data.name}, so that their labels "
            "would be lost: add them with robopref.preference.imitation.experts.with_experts"
        )
    number = matches(data, experts)
    known = number >= 0
    smallest = float(experts.rewards.min())
    minimum = smallest if config.minimum is None else config.minimum
    if minimum > smallest:
        raise RoboprefError(
            f"minimum={minimum}, but {experts.name}'s experts have a reward of {smallest}: give the environment's smallest"
        )
    out = np.zeros(len(data), np.float32)
    out[known] = experts.rewards[number[known]] - np.float32(minimum)
    return out
