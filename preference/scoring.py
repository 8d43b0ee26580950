"""Scores of many clips, each drawn, encoded and scored once, and never more than a chunk of pictures in memory.

Between the choice of pairs (preference/pairs.py) and labels (preference/annotate.py).  Scores are kept chunk by chunk
on disk, so that a killed run goes on.

Axes: N clips, T frames after the opening.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

from robopref.configs.arrays import read_array, sign
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file
from robopref.configs.progress import tracked
from robopref.datasets.clips import FRAMES, FrameBank, Segment, frame_steps, render_clips
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.videos import video_clip
from robopref.embodied.envs import MetaWorldEnv, make_env
from robopref.embodied.render import Renderer
from robopref.preference.baselines.motion import HAND
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
def open_clips(store: EpisodeStore | None, clips: Clips, view: View, env: MetaWorldEnv | None = None) -> Iterator[Draw]:
    """Draws or reads clips as `view` says; one environment, made now unless one is given, and one renderer for all."""
    if store is None:
        paths = [clip for clip in clips if isinstance(clip, Path)]

        def read(numbers: Sequence[int]) -> np.ndarray:
            clips = np.stack([video_clip(paths[number], view.frames, view.frame_size) for number in numbers])
            return np.concatenate([clips[:, :1], clips], axis=1)  # a video begins where its episode begins

        yield read
        return
    segments = [clip for clip in clips if isinstance(clip, Segment)]
    with nullcontext(env) if env is not None else closing(make_env(store.env_id)) as env:
        env.reset(seed=0)
        with Renderer(env, view.frame_size, view.camera) as renderer:
            yield lambda numbers: np.stack(
                list(render_clips(store, [segments[number] for number in numbers], renderer, view.frames))
            )


def score_in_chunks(
    scorer: Scorer,
    count: int,
    instruction: str,
    source: Callable[[list[range]], Generator[np.ndarray]],
    folder: Path,
    chunk: int,
) -> np.ndarray:
    """Scores of `count` clips, (N,) or a column a member, each scored once; a chunk that is in `folder` is not even drawn.

    source: gives the pictures of lists of clip numbers, one after the other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chunks = {folder / f"{start:09d}.npy": range(start, min(start + chunk, count)) for start in range(0, count, chunk)}
    missing = {path: numbers for path, numbers in chunks.items() if not path.exists()}
    if missing:
        with closing(source(list(missing.values()))) as drawn:
            todo = zip(missing, drawn, strict=True)
            for path, clips in tracked(todo, "scoring clips, part", len(missing)):
                found = scorer.score(clips, [instruction] * len(clips))
                with atomic_file(path) as aside:
                    np.save(aside, np.asarray(found, np.float64))
                    sign(aside)
    return np.concatenate([_scores(path, len(numbers)) for path, numbers in chunks.items()])


def _scores(path: Path, count: int) -> np.ndarray:
    """What `score_in_chunks` has kept of `count` clips, (N,) or (N, M)."""
    try:
        scores = read_array(path)
        if scores.dtype != np.float64 or scores.ndim not in (1, 2) or len(scores) != count:
            raise ValueError(f"{scores.dtype} {scores.shape} in it, scores of {count} clips wanted")
        return scores
    except (OSError, ValueError) as error:
        raise RoboprefError(f"{path}: these scores are damaged ({error}); delete this file and run again") from error


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


def hand_positions(store: EpisodeStore, segments: list[Segment], frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """Where the hand is in the frames of segments' clips, (N (1 + frames), 3) metres, and their rows, (N, 1 + frames)."""
    hand = np.empty((len(segments), 1 + frames, 3))
    read, path = -1, np.empty(0)
    for number, segment in enumerate(segments):
        if segment.episode != read:
            read, path = segment.episode, store.episode(segment.episode).observations[:, HAND]
        hand[number] = path[np.append(0, frame_steps(segment.start, segment.stop, frames))]
    return hand.reshape(-1, 3), np.arange(hand[..., 0].size).reshape(len(hand), 1 + frames)


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
