"""Clips that a user has as arrays: of any size and length, bytes or floats -> what a scorer looks at.

Between somebody's own code and `VLPScorer.score`; the commands draw or read their clips in the right form already.

Axes: N clips, L frames a clip, T frames after the opening.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.datasets.clips import frame_steps
from robopref.datasets.videos import fit

FORM = "clips are frames (N, L, H, W, 3), or N arrays (L, H, W, 3), as uint8 or as floats from 0 to 1"


def as_clips(clips: np.ndarray | Sequence[np.ndarray], frames: int, size: int) -> np.ndarray:
    """Clips of any L, H and W, uint8 or floats from 0 to 1 -> (N, 1 + `frames`, `size`, `size`, 3) uint8.

    A clip of 1 + `frames` frames is an opening and what is judged, as it is; of any other length it is a whole film, of which
    the first frame is the opening and `frames` are spread evenly.  Pictures keep their largest centred square.  RoboprefError
    naming what was given for everything else.
    """
    if not len(clips):
        raise RoboprefError(f"no clip: {FORM}")
    if isinstance(clips, np.ndarray) and clips.dtype == np.uint8 and clips.shape[1:] == (1 + frames, size, size, 3):
        return clips
    return np.stack([_one(np.asarray(clip), number, frames, size) for number, clip in enumerate(clips)])


def as_instructions(instructions: str | Sequence[str], clips: int) -> list[str]:
    """One sentence for all clips, or one a clip, as a list; RoboprefError when there are not as many as clips."""
    said = [instructions] * clips if isinstance(instructions, str) else list(instructions)
    if len(said) != clips:
        raise RoboprefError(f"{len(said)} instructions for {clips} clips: give one for all, or one a clip")
    return said


def _one(clip: np.ndarray, number: int, frames: int, size: int) -> np.ndarray:
    given = f"clip {number} is {'x'.join(map(str, clip.shape))} {clip.dtype}"
    if clip.ndim != 4 or clip.shape[-1] != 3 or not clip.size:
        raise RoboprefError(f"{given}: {FORM}")
    if len(clip) != 1 + frames:
        clip = clip[np.append(0, frame_steps(0, len(clip), frames))]
    return np.stack([fit(picture, size) for picture in _bytes(clip, given)])


def _bytes(clip: np.ndarray, given: str) -> np.ndarray:
    """Frames as uint8."""
    if clip.dtype == np.uint8:
        return clip
    low, high = float(clip.min()), float(clip.max())
    if np.issubdtype(clip.dtype, np.integer) and low >= 0 and high <= 255:
        return clip.astype(np.uint8)
    if np.issubdtype(clip.dtype, np.floating) and low >= 0 and high <= 1:  # false for NaN
        return np.rint(255 * clip.astype(np.float64)).astype(np.uint8)
    raise RoboprefError(f"{given} with values from {low:.4g} to {high:.4g}: {FORM}")
