"""Videos from outside (mp4 and whatever else ffmpeg reads) as clips.

Beside datasets/clips.py, which draws clips from simulator states: what comes out has the same shape, (T, H, W, 3)
uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob
from pathlib import Path

import numpy as np
from PIL import Image

from robopref.configs.errors import RoboprefError
from robopref.datasets.clips import FRAMES
from robopref.embodied.video import read_video

MOST_KEPT = 512  # pictures held while the length is not known; 77 MB at 224 px


def video_clip(path: Path, frames: int = FRAMES, size: int = 64) -> np.ndarray:
    """`frames` pictures spread evenly over the video, first and last included, as (T, size, size, 3) uint8.

    The largest centred square of each picture is kept and resized, as CLIP does.  A video with fewer pictures repeats
    some.  In one with more than 512 a chosen picture may lie off by 1/1024 of the length: it is read once, since a
    container's own count cannot be trusted, and never held whole.  Raises `RoboprefError` for an unreadable file.
    """
    kept: list[np.ndarray] = []
    stride, count = 1, 0
    last: np.ndarray | None = None
    for last in read_video(Path(path)):
        if count % stride == 0:
            kept.append(fit(last, size))
            if len(kept) == MOST_KEPT:
                kept, stride = kept[::2], 2 * stride
        count += 1
    assert last is not None  # read_video raises when there is no picture
    wanted = np.linspace(0, count - 1, frames) / stride
    clip = np.stack([kept[min(round(position), len(kept) - 1)] for position in wanted])
    clip[-1] = fit(last, size)
    return clip


def find_videos(patterns: Sequence[str]) -> list[Path]:
    """The files that names and patterns (`*`, `?`, `**`) stand for, each once, sorted; one without a match raises."""
    found: set[Path] = set()
    for pattern in patterns:
        matches = [Path(name) for name in glob(pattern, recursive=True)]
        if not matches:
            raise RoboprefError(f"{pattern}: no such video; correct the path, and quote a pattern.")
        folder = next((match for match in matches if match.is_dir()), None)
        if folder is not None:
            raise RoboprefError(f'{folder} is a folder; give its videos, such as "{folder}/*.mp4".')
        found.update(matches)
    return sorted(found)


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture (H, W, 3) -> (size, size, 3) uint8: the largest centred square, resized with antialiasing."""
    height, width, _ = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
