"""Videos from outside (mp4 and whatever else ffmpeg reads) as clips.

Beside datasets/clips.py, which draws clips from simulator states: what comes out has the same shape, (T, H, W, 3)
uint8.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from contextlib import closing
from glob import glob
from pathlib import Path

import numpy as np
from PIL import Image

from robopref.configs.errors import RoboprefError
from robopref.configs.files import read_json
from robopref.datasets.clips import FRAMES
from robopref.embodied.decode import Shown, check_file, legible, shown_pictures

MOST_KEPT = 512  # pictures held while the length is not known; 77 MB at 224 px
SHARD = re.compile(r"/videos/.+/chunk-\d+/file-\d+\.\w+$")  # how LeRobot's third format names them


def video_clip(path: Path, frames: int = FRAMES, size: int = 64) -> np.ndarray:
    """`frames` pictures spread evenly over the time of the video, first and last included, as (T, size, size, 3) uint8.

    The largest centred square of each picture is kept and resized, as CLIP does.  A video with fewer pictures repeats
    some, and one of a varying rate those that are shown for long.  In one with more than 512 a chosen picture may lie off by
    1/1024 of the length, at a varying rate by 1/256: it is read once, since a container's own count cannot be trusted, and
    never held whole.  Raises `RoboprefError` for a file that is no whole video, and for a shard of several episodes.
    """
    path = Path(path)
    check_file(path)
    refuse_shard(path)
    kept: list[Shown] = []
    stride, step, count = 1, 0.0, 0  # a picture is kept every so many while they come evenly, else every so many ticks
    even = _Even()
    last: Shown | None = None
    with closing(shown_pictures(path)) as pictures:
        for last in pictures:
            even.add(last.start)
            if (count % stride == 0) if even else (last.stop - kept[-1].stop >= step):
                kept.append(last._replace(picture=fit(last.picture, size)))
                if len(kept) == MOST_KEPT and even:
                    kept, stride = kept[::2], 2 * stride
                elif len(kept) == MOST_KEPT:
                    step = 2 * kept[-1].stop / MOST_KEPT
                    kept = _every(kept, step)
            count += 1
    assert last is not None  # shown_pictures raises when there is no picture
    if even.to_the_end(last):
        wanted = np.linspace(0, count - 1, frames) / stride
        clip = np.stack([kept[min(round(position), len(kept) - 1)].picture for position in wanted])
    else:
        # Half a picture from either end, so that the first and the last are met, and even ones as above.
        margin = min(kept[0].stop - kept[0].start, last.stop - last.start) / 2
        moments = np.linspace(margin, last.stop - margin, frames)
        clip = np.stack([_nearest(kept, moment).picture for moment in moments])
    clip[-1] = fit(last.picture, size)
    return clip


class _Even:
    """Whether pictures begin at even times: n gaps after the first, to within the tick that a clock rounds by."""

    def __init__(self) -> None:
        self.count = 0
        self.least, self.most = -math.inf, math.inf  # ticks between two pictures that explain all times so far

    def add(self, start: int) -> None:
        """One more picture."""
        if self.count:
            self.least = max(self.least, (start - 1) / self.count)
            self.most = min(self.most, (start + 1) / self.count)
        self.count += 1

    def __bool__(self) -> bool:
        return self.least < self.most

    def to_the_end(self, last: Shown) -> bool:
        """Whether the last picture is shown as long as the others.

        Containers without a length for each picture guess that of the last: what is less than a picture and 1/50 of the whole
        is not taken for a picture that is held.
        """
        gap = last.start / max(self.count - 1, 1)
        guessed = 1 + gap * min(1.0, self.count / 50)
        return bool(self) and (self.count == 1 or abs(last.stop - last.start - gap) <= guessed)


def _every(kept: Sequence[Shown], step: float) -> list[Shown]:
    """The first picture, and of the others so few that between those kept less than `step` ticks are lost at a time."""
    thinned = [kept[0]]
    for shown in kept[1:]:
        if shown.stop - thinned[-1].stop >= step:
            thinned.append(shown)
    return thinned


def _nearest(kept: Sequence[Shown], moment: float) -> Shown:
    """The picture shown at `moment`, or nearest to it; at a change the later one."""
    return min(reversed(kept), key=lambda shown: max(shown.start - moment, moment - shown.stop, 0.0))


def refuse_shard(path: Path) -> None:
    """Raise `RoboprefError` for a file of a LeRobot dataset of format 3 or later, in which many episodes follow each other.

    Known by `meta/info.json` above it, whose `codebase_version` says the format, or without one by its name.
    """
    for place in dict.fromkeys((place_of(path), path.resolve())):  # as it is named, and where a link leads to
        version = _lerobot_version(place)
        if SHARD.search(place.as_posix()) if version is None else version >= 3:
            raise RoboprefError(
                f"{legible(path)}: a shard of a LeRobot dataset, which holds several episodes one after the other; cut it into "
                "one video an episode (meta/episodes of the dataset says where each begins and ends), and give those."
            )


def _lerobot_version(place: Path) -> int | None:
    """The format of the LeRobot dataset whose `videos` folder `place` is in; None outside one."""
    for root in place.parents:
        info = root / "meta" / "info.json"
        if not (place.is_relative_to(root / "videos") and info.is_file()):
            continue
        try:
            version = re.match(r"v?(\d+)", str(read_json(info)["codebase_version"]))
        except (RoboprefError, KeyError, TypeError, OSError):
            continue
        return int(version[1]) if version else None
    return None


def find_videos(patterns: Sequence[str]) -> list[Path]:
    """The files that names and patterns (`*`, `?`, `[]`, `**`) stand for, each once, sorted; one without a match raises.

    What exists under a name, or a part of it, is taken before what the name would match as a pattern.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        matches = _matches(pattern)
        if not matches:
            raise RoboprefError(f"{legible(Path(pattern))}: no such video; correct the path, and quote a pattern.")
        folder = next((match for match in matches if match.is_dir()), None)
        if folder is not None:
            name = legible(folder)
            raise RoboprefError(f'{name} is a folder; give its videos, such as "{name}/*.mp4".')
        for match in matches:
            found.setdefault(place_of(match), match)
    return sorted(found.values())


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern)
    found = [Path(path.anchor)] if pattern else []
    for part in path.parts[bool(path.anchor) :]:
        existing = [folder / part for folder in found if os.path.lexists(folder / part)]
        if existing:
            found = existing
        elif part == "**":  # any number of folders, none as well
            found = [folder / name for folder in found for name in ("", *glob("**", root_dir=folder, recursive=True))]
        else:
            found = [folder / name for folder in found for name in glob(part, root_dir=folder)]
    return found


def place_of(path: Path) -> Path:
    """The absolute path, links of folders followed: the same for two spellings of it, but not for two links to one file."""
    return path.parent.resolve() / path.name


def check_video(path: Path) -> None:
    """Raise `RoboprefError` for what is known to be of no use before it is decoded: names, folders, pipes, text, shards."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        message = f"{legible(path)}: its name is not UTF-8, so no file of labels can hold it; rename it."
        raise RoboprefError(message) from None
    check_file(path)
    refuse_shard(path)


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture (H, W, 3) -> (size, size, 3) uint8: the largest centred square, resized with antialiasing."""
    height, width, _ = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
