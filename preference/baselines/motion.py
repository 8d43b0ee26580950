"""How the hand moved: labellers that see neither pixels nor words, to show what a number can be had for without either.

Read off the hand's position in the simulator's observations, some steps apart: of whole episodes in the rows of a frame bank,
of segments in the frames that their clips show (datasets/clips.py; both 7 steps).  Nothing is learnt.

Axes: M rows, those of an episode one after another; N clips, numbers of their opening and of T rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

HAND = slice(0, 3)  # of a Meta-World observation, metres


def displacement(hand: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """How far the hand (M, 3) is at the end of clips (N, 1 + T) from its place at their episode's opening: (N,) metres [ours]."""
    return np.asarray(np.linalg.norm(hand[clips[:, -1]] - hand[clips[:, 0]], axis=-1))


def first_half(hand: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Share of the path of the hand (M, 3) over clips (N, 1 + T) that lies in the first half of their time: (N,) [ours].

    The path is straight from row to row, over all rows from a clip's first, after the opening, to its last.  A hand that does
    not move has 0.5.  More is better: who has reached the goal rests (the sign was read off train tasks).
    """
    so_far = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(hand.astype(np.float64), axis=0), axis=-1)))
    first, last = clips[:, 1], clips[:, -1]
    path = so_far[last] - so_far[first]
    half = np.interp((first + last) / 2, np.arange(len(hand)), so_far) - so_far[first]
    return np.divide(half, path, out=np.full(len(path), 0.5), where=path > 0)


MOTIONS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "hand-displacement": displacement,
    "motion-share": first_half,
}
"""The labellers by name: positions of the hand (M, 3) and row numbers of clips (N, 1 + T) -> f(v), (N,)."""
