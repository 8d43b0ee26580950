"""A walker on a line, as offline data: it is worth its speed, and the better it is, the less it wobbles."""

from __future__ import annotations

import numpy as np

from robopref.datasets.offline import OfflineData, ReferenceScore
from robopref.preference.prof.code import Fields

FIELDS = Fields(("speed", "wobble"), ("push", "lean"))


def walker(lengths: tuple[int, ...] = (40, 40, 40), skill: float = 0.0, seed: int = 0) -> OfflineData:
    """skill: 1 for an expert, whose speed is about 2 and who hardly wobbles; the last episode ends for good."""
    rng = np.random.default_rng([seed, int(10 * skill)])
    rows, steps = sum(lengths) + len(lengths), sum(lengths)
    spread = 1.05 - skill
    observations = np.stack([2 * skill + spread * rng.normal(size=rows), spread * rng.normal(size=rows)], 1)
    actions = np.clip(np.stack([skill + 0.3 * rng.normal(size=steps), 0.3 * rng.normal(size=steps)], 1), -1, 1)
    first = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.repeat(np.arange(len(lengths)), lengths)
    rewards = observations[np.arange(steps) + starts, 0]
    return OfflineData(
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        first=first,
        terminated=np.arange(len(lengths)) == len(lengths) - 1,
        name=f"walker of skill {skill:g}",
        score=ReferenceScore(0.0, 80.0),
    )
