"""Which episodes are the expert's, and where their transitions are in the data.

Comes after datasets.d4rl; the experts go to SEABO, OTR and UDS beside the data they label.  The papers take the best episodes of
the very file that is labelled: `best_episodes(data, 1)`.  Where the experts come from another file, `with_experts` adds them
first, so that a policy learns from them too.

Axes: E episodes, M transitions of the data, N of the experts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.datasets.offline import OfflineData, said

CHUNK = 16384  # transitions that are copied at a time


def best_episodes(data: OfflineData, count: int, worth: np.ndarray | None = None) -> OfflineData:
    """The `count` episodes of highest return as recorded, the best first; of equals, the earlier.

    worth (E,): what to go by instead of the return.  RoboprefError when there are fewer episodes.
    """
    worth = data.returns if worth is None else worth
    if not 1 <= count <= data.episodes:
        raise RoboprefError(
            f"{data.name} holds {data.episodes} episodes, so {count} experts cannot be taken from it: ask for 1 to that many"
        )
    if worth.shape != (data.episodes,):
        raise RoboprefError(f"{data.name} holds {data.episodes} episodes, but their worth is given as {worth.shape} numbers")
    return data.take(np.argsort(-worth, kind="stable")[:count])


def antmaze_worth(data: OfflineData) -> np.ndarray:
    """(E,), what best_episodes goes by on AntMaze, where all episodes that arrive have return 1.

    As in the code of OTR and SEABO: return / (1e-4 + |xy|), with xy where the episode starts.
    """
    starts = data.observations[data.rows[data.first[:-1]], :2].astype(np.float64)
    return data.returns / (1e-4 + np.linalg.norm(starts, axis=1))


def check_alike(data: OfflineData, experts: OfflineData) -> None:
    """RoboprefError unless observations and actions of both are of the same size and in the same units."""
    if data.dims != experts.dims:
        raise RoboprefError(
            f"{data.name} has {data.dims[0]} observation and {data.dims[1]} action numbers, its experts from {experts.name} "
            f"{experts.dims[0]} and {experts.dims[1]}: take experts of the same environment"
        )
    if data.box is not None and experts.box is not None and not all(map(np.array_equal, data.box, experts.box)):
        raise RoboprefError(
            f"{data.name} has actions in {said(data.box)}, its experts from {experts.name} in {said(experts.box)}: "
            "bring both to [-1, 1] first (`datasets.d4rl.clipped`)"
        )


def matches(data: OfflineData, experts: OfflineData) -> np.ndarray:
    """(M,) int64: number of the expert transition with the same state, action and next state, -1 where there is none.

    The same means every float32 alike; of equal expert transitions the first counts.  Rewards are not looked at.
    """
    check_alike(data, experts)
    marks, where = np.unique(_fingerprints(experts), return_index=True)
    own = _fingerprints(data)
    slot = np.minimum(np.searchsorted(marks, own), len(marks) - 1)
    found = np.flatnonzero(marks[slot] == own)
    number = where[slot[found]]
    # two different transitions have one fingerprint about once in 2^64 pairs, so the few that are found are compared
    same = (_transitions(data, found) == _transitions(experts, number)).all(1)
    out = np.full(len(data), -1, np.int64)
    out[found[same]] = number[same]
    return out


def with_experts(data: OfflineData, experts: OfflineData) -> tuple[OfflineData, np.ndarray]:
    """`data`, with those expert episodes at its end that are not wholly in it, and which transitions an expert did, (M,) bool.

    Experts that were chosen from `data` leave it as it is.  A transition is an expert's if `matches` finds it.
    """
    missing = matches(experts, data) < 0
    added = np.flatnonzero(np.logical_or.reduceat(missing, experts.first[:-1]))
    if len(added):
        data = _joined(data, experts.take(added))
    return data, matches(data, experts) >= 0


def _transitions(data: OfflineData, numbers: np.ndarray) -> np.ndarray:
    """(len(numbers), 2 do + da) float32: state, action, next state."""
    rows = data.rows[numbers]
    return np.concatenate([data.observations[rows], data.actions[numbers], data.observations[rows + 1]], 1, dtype=np.float32)


def _fingerprints(data: OfflineData) -> np.ndarray:
    """(M,) uint64 that are equal for equal transitions: the bits of their numbers, each times its own odd constant, summed."""
    size = 2 * data.dims[0] + data.dims[1]
    odd = np.random.default_rng(0).integers(2**64, size=size, dtype=np.uint64) | np.uint64(1)
    out = np.empty(len(data), np.uint64)
    for start in range(0, len(data), CHUNK):
        part = _transitions(data, np.arange(start, min(start + CHUNK, len(data))))
        bits = (part + np.float32(0)).view(np.uint32)  # -0 becomes 0, its equal
        mixed = bits.astype(np.uint64) * odd  # its high bits know all of `bits`; shifted, they decide the low bits of the sum too
        out[start : start + len(part)] = (mixed ^ (mixed >> np.uint64(29))) @ odd[::-1]
    return out


def _joined(data: OfflineData, more: OfflineData) -> OfflineData:
    """The episodes of both; name, environment, score, facts and box are those of `data`."""
    last = [np.zeros(part.episodes, np.float32) if part.last_rewards is None else part.last_rewards for part in (data, more)]
    return replace(
        data,
        observations=np.concatenate([data.observations, more.observations]),
        actions=np.concatenate([data.actions, more.actions]),
        rewards=np.concatenate([data.rewards, more.rewards]),
        first=np.concatenate([data.first, len(data) + more.first[1:]]),
        terminated=np.concatenate([data.terminated, more.terminated]),
        last_rewards=None if data.last_rewards is None and more.last_rewards is None else np.concatenate(last),
    )
