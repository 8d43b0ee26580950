"""How the hand moved: labellers that see neither pixels nor words, to show what a number can be had for without either.

What a motion is worth is read off the hand's position at the very frames that a clip shows (datasets/clips.py), from the
simulator's observations, of whole episodes as of segments.  Nothing is learnt.

Axes: N clips, T frames after the opening, 3 coordinates in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

HAND = slice(0, 3)  # of a Meta-World observation


def displacement(hand: np.ndarray) -> np.ndarray:
    """How far the hand is at a clip's end from where it was at its episode's opening: (N, 1 + T, 3) -> (N,), metres [ours]."""
    return np.asarray(np.linalg.norm(hand[:, -1] - hand[:, 0], axis=-1))


def first_half(hand: np.ndarray) -> np.ndarray:
    """Share of the hand's path over a clip's T frames that lies in the first half of its time: (N, 1 + T, 3) -> (N,) [ours].

    The path is a straight line from frame to frame; the middle one of an odd number of lines is half in either half.  A hand
    that does not move has 0.5.  More is better: who has reached the goal rests (which sign it has was read off train tasks).
    """
    lengths = np.linalg.norm(np.diff(hand[:, 1:], axis=1), axis=-1)  # (N, T - 1)
    lines = lengths.shape[1]
    within = np.clip(lines / 2 - np.arange(lines), 0.0, 1.0)
    path = lengths.sum(axis=1)
    return np.divide(lengths @ within, path, out=np.full(len(path), 0.5), where=path > 0)


MOTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"hand-displacement": displacement, "motion-share": first_half}
"""The labellers by name: positions of the hand (N, 1 + T, 3) -> f(v), (N,)."""
