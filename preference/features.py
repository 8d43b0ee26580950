"""Features of frames, and their cache: each frame of the banks is encoded once, whatever number of clips it is in.

A file a bank, keyed by the backbone's digest (weights and preprocessing) and the frames' own, so a stale cache is never
read, and a bank that is used with others another time is not encoded again.

Axes: N clips, T frames after the opening, M frames of a bank, P tokens a frame, D features.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robopref.configs.arrays import read_array, sign
from robopref.configs.digests import file_digest
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, new_array_file
from robopref.datasets.clips import FrameBank, Stacked
from robopref.preference.backbone import FrameEncoder

CHUNK = 256  # frames encoded at a time
BATCH = 64  # of a chunk of clips: what the small backbone makes of more does not stay in a processor's cache


class FeatureScorer(Protocol):
    """A Scorer (preference/labellers.py) that looks at frames through a frozen encoder, so that each is encoded only once."""

    digest: str
    """Changes with everything that the scores depend on."""
    camera: str
    """The view that it wants to be shown,"""
    frame_size: int
    """of this height and width in pixels,"""
    frames: int
    """with T frames a clip."""

    @property
    def backbone(self) -> FrameEncoder:
        """What the features come from."""

    def score_features(self, features: np.ndarray, instructions: list[str]) -> np.ndarray:
        """features (N, (1 + T) * P, D), what `encode_clips` gives, and one instruction a clip -> f(v | l), (N,)."""

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        """The same from pixels: clips (N, 1 + T, H, W, 3) uint8."""


@torch.no_grad()
def encode_clips(clips: np.ndarray, encoder: FrameEncoder) -> np.ndarray:
    """clips (N, 1 + T, H, W, 3) uint8 -> features (N, (1 + T) * P, D) float16."""
    if clips.dtype != np.uint8:
        raise RoboprefError(f"frames of {clips.dtype} are no pictures: give uint8, from 0 to 255")
    n, t = clips.shape[:2]
    frames = clips.reshape(n * t, *clips.shape[2:])
    batches = [encoder.encode_frames(frames[start : start + BATCH]).half().cpu() for start in range(0, n * t, BATCH)]
    return torch.cat(batches).reshape(n, t * batches[0].shape[1], -1).numpy()


def some_frames(clips: Tensor, count: int) -> Tensor:
    """`count` of the T frames of clips (N, T, ...), evenly spread, the last one always: what has been done is seen there."""
    frames = clips.shape[1]
    return clips[:, [round(frames - 1 - k * (frames - 1) / max(count - 1, 1)) for k in reversed(range(count))]]


def cached_features(bank: FrameBank, backbone: FrameEncoder, folder: Path) -> Stacked:
    """Features of every frame of `bank`, (M, P, D) float16, memory mapped in `folder`; encoded now unless they are there."""
    return Stacked([_one_bank(source, backbone, folder) for source in bank.folders])


def _one_bank(source: Path, backbone: FrameEncoder, folder: Path) -> np.ndarray:
    key = hashlib.sha256((backbone.digest + file_digest(source / "frames.npy")).encode()).hexdigest()[:16]
    path = folder / f"{backbone.name.replace('/', '_')}-{source.name}-{key}.npy"
    frames = read_array(source / "frames.npy", "r")
    shape = len(frames), backbone.tokens_per_frame, backbone.image_dim
    if not path.exists():
        with atomic_file(path) as aside:
            features = new_array_file(aside, np.float16, shape)
            for start in range(0, len(frames), CHUNK):
                pixels = np.array(frames[start : start + CHUNK])  # a copy: torch warns of arrays that it must not write to
                features[start : start + CHUNK] = backbone.encode_frames(pixels).cpu().numpy()
            features.flush()
            sign(aside)
    try:
        cached = read_array(path, "r")
        if cached.shape != shape or cached.dtype != np.float16:
            raise ValueError(f"{cached.dtype} {cached.shape} in it, float16 {shape} wanted")
        return cached
    except (OSError, ValueError) as error:
        raise RoboprefError(f"{path}: the feature cache is damaged ({error}); delete this file and run again.") from error
