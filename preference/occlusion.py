"""Where a scorer looks, by covering: how much f(v | l) falls when a square of the picture cannot be seen.

The occlusion of Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, for clips: the same square
is covered in all frames [ours], so that no other frame can stand in, and one map belongs to the whole clip.  Only scores are
asked for, so it works with any scorer.

Axes: T frames after the opening, G squares a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopref.configs.errors import UsageError
from robopref.preference.labellers import Scorer


@dataclass(frozen=True)
class Occlusion:
    """What covering did: `falls` (G, G) of the score by the square's row and column; > 0 where the clip is worse without it."""

    score: float  # f(v | l) of the clip as it is
    falls: np.ndarray
    corners: np.ndarray  # (G,) pixels, top of each row of squares and left of each column
    side: int  # pixels, of a square

    def heat(self, size: int) -> np.ndarray:
        """(size, size), for a picture of that size: the fall without the square around each pixel, interpolated."""
        centres = (self.corners + self.side / 2) * size / (self.corners[-1] + self.side)
        pixels = np.arange(size) + 0.5
        rows = np.stack([np.interp(pixels, centres, column) for column in self.falls.T])  # (G, size)
        return np.stack([np.interp(pixels, centres, row) for row in rows.T])


def occlusion(scorer: Scorer, clip: np.ndarray, instruction: str, square: float, grid: int, batch: int) -> Occlusion:
    """Cover `grid` x `grid` squares (fewer in a small picture), one after another, in every frame of clip (1 + T, H, H, 3) uint8.

    square: side of a square as a share of the picture's.  batch: covered clips held at a time.  A covered square has the mean
    colour of the clip, which says nothing, and yet is no picture that the scorer was trained on: small falls mean little.
    UsageError when the squares leave gaps.
    """
    size = clip.shape[1]
    side = max(1, round(square * size))
    corners = np.unique(np.linspace(0, size - side, grid).round().astype(int))
    if np.diff(corners).max(initial=0) > side or corners[-1] + side < size:
        raise UsageError(f"--grid {grid}: squares of {side} pixels leave gaps in {size}; at least {-(-size // side)} are needed")
    grey = clip.mean((0, 1, 2)).round().astype(np.uint8)
    places = [(top, left) for top in corners for left in corners]
    scores = [scorer.score(clip[None], [instruction])]
    for start in range(0, len(places), batch):
        chosen = places[start : start + batch]
        covered = np.repeat(clip[None], len(chosen), 0)
        for picture, (top, left) in zip(covered, chosen, strict=True):
            picture[:, top : top + side, left : left + side] = grey
        scores.append(scorer.score(covered, [instruction] * len(chosen)))
    whole, *rest = np.concatenate(scores).tolist()
    return Occlusion(whole, whole - np.array(rest).reshape(len(corners), -1), corners, side)
