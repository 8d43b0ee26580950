"""SEABO: what is near to an expert's transition is good (Lyu et al. 2024, arXiv 2402.03807; authors' code dmksjfl/SEABO).

Comes after experts.py; its rewards go to offline learners, as they are for locomotion and Adroit, through scale_rewards "antmaze"
for AntMaze.

The paper's: the formula and its constants.  From its code: distances between raw numbers (nothing is standardised), to the k-th
neighbour alone.  Ours: how it is searched.  The authors ask a k-d tree, which in 40 dimensions visits most of the expert's
transitions anyway; a matrix product with all of them finds the same neighbours sooner, so that the rewards are the same.

Axes: M transitions of the data, N of the experts, D numbers that are compared.
"""

from __future__ import annotations

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.imitation import SEABOConfig
from robopref.datasets.offline import OfflineData
from robopref.preference.imitation.experts import check_alike
from robopref.preference.imitation.threads import in_threads

BLOCK = 2**18  # products at a time and thread, 2 MiB: they stay in the processor's cache


def seabo_rewards(data: OfflineData, experts: OfflineData, config: SEABOConfig | None = None) -> np.ndarray:
    """(M,) float32, alpha exp(-beta d / |A|) with d as in expert_distances and |A| action dimensions (1 without `per_action`)."""
    config = config or SEABOConfig()
    if not (config.alpha > 0 and config.beta > 0):
        raise RoboprefError(f"SEABO with alpha={config.alpha} and beta={config.beta}: both must be above 0")
    size = data.dims[1] if config.per_action else 1
    return (config.alpha * np.exp(-config.beta / size * expert_distances(data, experts, config))).astype(np.float32)


def expert_distances(data: OfflineData, experts: OfflineData, config: SEABOConfig) -> np.ndarray:
    """(M,) float64, the Euclidean distance of each transition to its `neighbours`-th nearest of the experts.

    Neighbours are found by their products in double precision, around the experts' mean, and the distance is then measured
    between the two: that of a k-d tree up to 1e-7 of the numbers' size, and 0 for what an expert did.  Memory: a few MB a thread.
    """
    check_alike(data, experts)
    if not 1 <= config.neighbours <= len(experts):
        raise RoboprefError(f"neighbours={config.neighbours}, but {experts.name} gives {len(experts)} expert transitions")
    known = _compared(experts, slice(None), config.compare)
    centre = known.mean(0)
    known -= centre
    # |q - e|^2 / 2 less what does not depend on e, as one product: (q, 1) . (-e, |e|^2 / 2)
    factors = np.concatenate([-known.T, (known**2).sum(1)[None] / 2])

    def distances(chunk: slice) -> np.ndarray:
        query = _compared(data, chunk, config.compare) - centre
        score = np.concatenate([query, np.ones((len(query), 1))], 1) @ factors
        if config.neighbours == 1:
            nearest = score.argmin(1)
        else:
            nearest = np.argpartition(score, config.neighbours - 1, axis=1)[:, config.neighbours - 1]
        query -= known[nearest]
        return np.sqrt(np.einsum("md,md->m", query, query))

    rows = max(1, min(256, BLOCK // len(known)))
    chunks = (slice(start, min(start + rows, len(data))) for start in range(0, len(data), rows))
    return np.concatenate(list(in_threads(distances, chunks, config.workers)))


def _compared(data: OfflineData, chunk: slice, compare: str) -> np.ndarray:
    """(rows of the chunk, D) float64."""
    rows = data.rows[chunk]
    parts = {"s": data.observations[rows], "a": data.actions[chunk]}
    if compare not in ("sas", "sa", "ss"):
        raise RoboprefError(f"compare={compare!r}: SEABO compares sas, sa or ss")
    last = data.observations[rows + 1] if compare.endswith("s") else parts["a"]
    return np.concatenate([parts["s"], *([parts["a"]] if compare == "sas" else []), last], 1, dtype=np.float64)
