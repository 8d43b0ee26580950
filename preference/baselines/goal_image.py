"""Goal-image distance: how near a clip's last frame comes to a picture of the finished task.

A reference and not a rival: it is shown a goal of the very task that it judges, where VLP gets a sentence.  Minus the distance
of frame and goal in a frozen encoder's features is the value that goal-image rewards are made of [Ma et al., "VIP: Towards
Universal Visual Reward and Representation via Value-Implicit Pre-Training", ICLR 2023]; encoder and picture are ours.

Axes: N clips, T frames after the opening, G goals, P tokens a frame, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from robopref.configs.errors import RoboprefError
from robopref.datasets.clips import FrameBank
from robopref.datasets.videos import fit
from robopref.preference.backbone import FrameEncoder
from robopref.preference.features import encode_clips


@dataclass(frozen=True)
class Goals:
    """Pictures of finished tasks, and which of them a sentence asks for."""

    pictures: list[np.ndarray]  # G of (H, W, 3) uint8
    asked_by: Mapping[str, int]  # instruction -> number of its picture


class GoalImage:
    """A `FeatureScorer`: minus the distance of the last frame and the goal picture, in the encoder's own units."""

    def __init__(self, encoder: FrameEncoder, goals: Goals, camera: str, frame_size: int, frames: int) -> None:
        self.backbone, self.camera, self.frame_size, self.frames = encoder, camera, frame_size, frames
        pictures = np.stack([fit(picture, frame_size) for picture in goals.pictures])
        self._goals = encode_clips(pictures[:, None], encoder).astype(np.float32)  # (G, P, D), rounded as clips are
        self._asked_by = goals.asked_by
        self.digest = hashlib.sha256(encoder.digest.encode() + pictures.tobytes()).hexdigest()

    def score_features(self, features: np.ndarray, instructions: list[str]) -> np.ndarray:
        """features (N, (1 + T) * P, D) and one instruction a clip, each with a goal -> (N,) float64, at most 0."""
        goals = self._goals[[self._asked_by[sentence] for sentence in instructions]]
        last = np.asarray(features[:, -self.backbone.tokens_per_frame :], np.float32)
        return -np.sqrt(np.square(last - goals).sum((1, 2), dtype=np.float64))

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        """clips (N, 1 + T, H, W, 3) uint8, instructions (N) -> (N,)."""
        return self.score_features(encode_clips(clips, self.backbone), instructions)


def read_goal(path: Path) -> np.ndarray:
    """The goal picture (H, W, 3) uint8: a picture file, or the frame bank of a task (`goal_of_bank`)."""
    path = Path(path)
    if path.is_dir():
        bank = FrameBank([path], any_name=True)
        return goal_of_bank(bank, str(bank.index["task"].iloc[0]))
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise RoboprefError(f"{path}: neither a picture nor a frame bank ({error}); give one of the finished task.") from error


def goal_of_bank(bank: FrameBank, task: str) -> np.ndarray:
    """The last frame of the first expert episode of `task`, (H, W, 3) uint8: shortly after success [ours]."""
    rows = np.flatnonzero((bank.index["task"] == task) & (bank.index["level"] == "expert"))
    if not len(rows):
        raise RoboprefError(f"{bank.folders[0].parent}: no expert episode of {task}, so no goal picture; collect it first.")
    first = bank.index["episode"].to_numpy()[rows] == bank.index["episode"].iloc[rows[0]]
    return bank.frames(rows[first][-1])
