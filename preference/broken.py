"""Which of the videos that a user gave cannot be used, found out before hours are spent on the others.

Before the choice of pairs (preference/pairs.py) and before pictures of where a VLP looks (preference/look.py).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from robopref.configs.errors import RoboprefError
from robopref.configs.progress import tracked
from robopref.datasets.videos import check_video
from robopref.embodied.decode import legible
from robopref.embodied.video import read_video

NAMED = 3  # of many broken videos, in one line


def find_broken(videos: Sequence[Path], whole: bool, workers: int = 1) -> dict[Path, str]:
    """Which of `videos` cannot be used, and why, in one line that names it.

    whole: read every picture, which alone finds what is damaged within; else look at names and beginnings only.  workers:
    files read at a time.
    """
    stop = threading.Event()

    def reason(video: Path) -> str | None:
        try:
            check_video(video)
            if whole:
                with closing(read_video(video)) as pictures:
                    for _ in pictures:
                        if stop.is_set():
                            break
        except RoboprefError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as pool:  # threads do, as ffmpeg decodes in processes of its own
        try:
            reasons = pool.map(reason, videos)
            found = tracked(reasons, "checking videos,", len(videos)) if whole else reasons
            return {video: why for video, why in zip(videos, found, strict=True) if why is not None}
        finally:  # after Ctrl-C, too, only the files that are being read are waited for, and those not to their end
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def refuse_broken(broken: Mapping[Path, str], count: int, way_out: str = "") -> None:
    """Raise `RoboprefError` if some of `count` videos are broken: why the first is, which others are, and a way out."""
    if not broken:
        return
    first, *others = broken
    more = ""
    if others:
        named = ", ".join(legible(path) for path in others[:NAMED]) + (", ..." if len(others) > NAMED else "")
        more = f"  Of the {count} videos {len(others)} more cannot be used: {named}."
    raise RoboprefError(f"{broken[first]}{more}{way_out}")
