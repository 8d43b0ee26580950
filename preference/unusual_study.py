"""`python -m robopref.preference.unusual_study OUT.csv`: how unusual is what a VLP is made for, and what it cannot judge?

Comes before the limit in datasets/preferences.py, which is chosen from this table.  Statistics (preference/unusual.py) are of the
frame banks of the train tasks; a row is a group of clips: each train task, left out of the statistics; each test task;
pictures of some train tasks that are changed or seen from other cameras; films of other people, robots and places.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro

from robopref.configs.cli import guarded
from robopref.configs.files import atomic_file
from robopref.configs.flags import from_flags
from robopref.datasets.clips import FRAMES, FrameBank
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.videos import find_videos, video_clip
from robopref.embodied.envs import make_env
from robopref.embodied.render import DEFAULT_CAMERA, Renderer
from robopref.embodied.tasks import expand_tasks
from robopref.preference.unusual import TrainingPictures

CAMERAS = ("corner", "corner2", "corner3", "topview", "behindGripper", "gripperPOV")
CHANGED = {
    "upright": lambda x: x,
    "upside down": lambda x: x[:, ::-1],
    "mirrored": lambda x: x[:, :, ::-1],
    "red and blue exchanged": lambda x: x[..., ::-1],
    "grey": lambda x: np.repeat(x.mean(-1, keepdims=True), 3, -1),
    "inverted": lambda x: 255 - x,
    "brighter by 60": lambda x: np.clip(x.astype(float) + 60, 0, 255),
    "0.4 times as bright": lambda x: 0.4 * x,
    "with noise of 15": lambda x: np.clip(x + np.random.default_rng(0).normal(0, 15, x.shape), 0, 255),
    "moved by 1/16": lambda x: np.roll(x, x.shape[2] // 16, 2),
    "black": lambda x: np.zeros_like(x),
    "white": lambda x: np.full_like(x, 255),
    "noise": lambda x: np.random.default_rng(0).integers(0, 256, x.shape),
}


@dataclass(frozen=True)
class UnusualConfig:
    """What is measured."""

    out: Annotated[Path, tyro.conf.Positional]
    """CSV to write."""
    clips: Path = Path("data/clips")
    """Folder of frame banks, one a task."""
    episodes: Path = Path("data/episodes")
    """Folder of the episodes that the banks were drawn from, for other cameras."""
    tasks: tuple[str, ...] = ("paper:train",)
    """Tasks whose pictures are known."""
    test: tuple[str, ...] = ("paper:test",)
    """Tasks that no statistics are taken of."""
    changed: tuple[str, ...] = ("door-open", "reach", "hammer")
    """Of the train tasks those whose pictures are changed, and drawn from other cameras."""
    films: tuple[str, ...] = ()
    """Films of anything else, patterns such as "films/*.mp4" allowed."""


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(UnusualConfig, argv, "python -m robopref.preference.unusual_study", __doc__)
    table = run(config)
    print(
        table.groupby("group", sort=False)[["median", "most", "least"]].agg({"median": "median", "most": "max", "least": "min"})
    )


def run(config: UnusualConfig) -> pd.DataFrame:
    """Measure all groups, write and return the table."""
    names = expand_tasks(config.tasks)
    banks = {name: FrameBank([config.clips / name]) for name in names}
    known = TrainingPictures.of(FrameBank([config.clips / name for name in names]))
    rows = []

    def add(group: str, what: str, distances: np.ndarray) -> None:
        spread = {"median": np.median(distances), "least": distances.min(), "most": distances.max()}
        rows.append({"group": group, "what": what, "clips": len(distances)} | {key: round(x, 4) for key, x in spread.items()})

    for name in names:
        others = TrainingPictures.of(FrameBank([config.clips / other for other in names if other != name]))
        # In units of all, so that its mean is at most 1 by definition; others have another unit.
        add("left-out", name, others.distance(clips_of(banks[name])) * others.unit / known.unit)
    for name in expand_tasks(config.test):
        add("test", name, known.distance(clips_of(FrameBank([config.clips / name]))))
    for camera in (DEFAULT_CAMERA, *CAMERAS):
        drawn = np.concatenate([episodes_from(config.episodes / name, camera, banks[name]) for name in config.changed])
        if camera != DEFAULT_CAMERA:
            add("other-camera", camera, known.distance(drawn))
            continue
        for what, change in CHANGED.items():
            changed = np.stack([np.asarray(change(clip)) for clip in drawn]).astype(np.uint8)
            add("own-camera" if what == "upright" else "changed", what, known.distance(changed))
    for path in find_videos(config.films):
        add("film", path.name, known.distance(video_clip(path, FRAMES)[None]))
    table = pd.DataFrame(rows)
    with atomic_file(config.out) as temp:
        table.to_csv(temp, index=False)
    return table


def clips_of(bank: FrameBank) -> np.ndarray:
    """Frames of a bank, FRAMES of an episode at a time, (N, FRAMES, H, W, 3)."""
    rows = [part for numbers in bank.index.groupby("episode").indices.values() for part in pieces(numbers)]
    return np.stack([bank.frames(part) for part in rows])


def pieces(numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive FRAMES of row numbers; what is left over is left out."""
    for start in range(0, len(numbers) - FRAMES + 1, FRAMES):
        yield numbers[start : start + FRAMES]


def episodes_from(folder: Path, camera: str, bank: FrameBank) -> np.ndarray:
    """The first episode of each level, drawn from another camera as large as its bank, (N, FRAMES, H, W, 3)."""
    store = EpisodeStore(folder)
    first = store.index.groupby("level", sort=False)["episode"].first()
    with closing(make_env(store.env_id)) as env:
        env.reset(seed=0)
        with Renderer(env, bank.frames(np.array([0])).shape[1], camera) as renderer:
            lengths = store.index.set_index("episode")["length"]
            steps = (np.linspace(0, lengths[number], FRAMES).round().astype(int) for number in first)
            return np.stack([renderer.frames(*store.states(int(n), s)) for n, s in zip(first, steps, strict=True)])


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
