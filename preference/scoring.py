"""Scores of many clips, each drawn, encoded and scored once, and never more than a chunk of pictures in memory.

Between the choice of pairs (preference/pairs.py) and labels (preference/annotate.py).  Scores are kept chunk by chunk
on disk, so that a killed run goes on.

Axes: N clips, T frames after the opening.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from rich.progress import track

from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file
from robopref.datasets.clips import FrameBank, Segment, render_clips
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.videos import video_clip
from robopref.embodied.envs import make_env
from robopref.embodied.render import Renderer
from robopref.preference.labellers import Scorer

Clips = list[Segment] | list[Path]
Draw = Callable[[Sequence[int]], np.ndarray]  # numbers of clips (n) -> (n, 1 + T, H, W, 3) uint8


class View(Protocol):
    """How somebody wants to be shown clips."""

    @property
    def camera(self) -> str:
        """Of the renderer; a video has only one."""

    @property
    def frame_size(self) -> int:
        """Height and width of a frame in pixels."""

    @property
    def frames(self) -> int:
        """T."""


@contextmanager
def open_clips(store: EpisodeStore | None, clips: Clips, view: View) -> Iterator[Draw]:
    """Draws or reads clips as `view` says; one environment and one renderer for all."""
    if store is None:
        paths = [clip for clip in clips if isinstance(clip, Path)]

        def read(numbers: Sequence[int]) -> np.ndarray:
            clips = np.stack([video_clip(paths[number], view.frames, view.frame_size) for number in numbers])
            return np.concatenate([clips[:, :1], clips], axis=1)  # a video begins where its episode begins

        yield read
        return
    segments = [clip for clip in clips if isinstance(clip, Segment)]
    with closing(make_env(store.env_id)) as env:
        env.reset(seed=0)
        with Renderer(env, view.frame_size, view.camera) as renderer:
            yield lambda numbers: np.stack(
                list(render_clips(store, [segments[number] for number in numbers], renderer, view.frames))
            )


def score_in_chunks(
    scorer: Scorer,
    count: int,
    instruction: str,
    source: Callable[[], AbstractContextManager[Draw]],
    folder: Path,
    chunk: int,
) -> np.ndarray:
    """Scores of `count` clips, (N,), each scored once; a chunk whose scores are in `folder` is not even drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    scores: list[np.ndarray] = []
    with ExitStack() as stack:
        draw: Draw | None = None
        for start in track(range(0, count, chunk), "scoring clips", disable=not sys.stdout.isatty()):
            path = folder / f"{start:09d}.npy"
            if not path.exists():
                draw = draw or stack.enter_context(source())
                numbers = range(start, min(start + chunk, count))
                found = scorer.score(draw(numbers), [instruction] * len(numbers))
                with atomic_file(path) as aside:
                    np.save(aside, np.asarray(found, np.float64))
            scores.append(np.load(path))
    return np.concatenate(scores)


def true_returns(store: EpisodeStore, segments: list[Segment]) -> np.ndarray:
    """Sum of the environment's rewards over each segment, (N,); an episode is read once, as segments are sorted."""
    returns = np.empty(len(segments))
    read, rewards = -1, np.empty(0)
    for number, segment in enumerate(segments):
        if segment.episode != read:
            read, rewards = segment.episode, store.rewards(segment.episode)
        returns[number] = rewards[segment.start : segment.stop].sum()
    if not np.isfinite(returns).all():
        raise RoboprefError(f"{store.path}: rewards hold NaN or infinity; collect it again.")
    return returns


def returns_so_far(bank: FrameBank, episodes: Path) -> np.ndarray:
    """Sum of the environment's rewards before each frame of `bank`, (M,), from the datasets TASK in the folder `episodes`.

    Raises `RoboprefError` where these are not the episodes that the bank was drawn from.
    """
    returns = np.empty(len(bank))
    for task, frames in bank.index.groupby("task", sort=False):
        store = EpisodeStore(episodes / str(task))
        for episode, rows in frames.groupby("episode", sort=False):
            length = int(rows["length"].iloc[0])
            if int(episode) >= len(store) or store.index["length"].iloc[int(episode)] != length:
                raise RoboprefError(f"{store.path}: not what the frame bank of {task} was drawn from; give those episodes.")
            so_far = np.append(0.0, np.cumsum(store.rewards(int(episode))))
            returns[rows.index] = so_far[rows["step"]]
    return returns
