"""The cache of frame features: each frame of the banks is encoded once, whatever number of clips it is in.

A file a bank, keyed by the backbone's digest (weights and preprocessing) and the frames' own, so a stale cache is never
read, and a bank that is used with others another time is not encoded again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, digest, new_array_file
from robopref.datasets.clips import FrameBank, Stacked
from robopref.preference.backbone import Backbone

CHUNK = 256  # frames encoded at a time


def cached_features(bank: FrameBank, backbone: Backbone, folder: Path) -> Stacked:
    """Features of every frame of `bank`, (M, P, D) float16, memory mapped in `folder`; encoded now unless they are there."""
    return Stacked([_one_bank(source, backbone, folder) for source in bank.folders])


def _one_bank(source: Path, backbone: Backbone, folder: Path) -> np.ndarray:
    key = hashlib.sha256((backbone.digest + digest(source / "frames.npy")).encode()).hexdigest()[:16]
    path = folder / f"{backbone.name.replace('/', '_')}-{source.name}-{key}.npy"
    if not path.exists():
        frames = np.load(source / "frames.npy", mmap_mode="r")
        with atomic_file(path) as aside:
            features = new_array_file(aside, np.float16, (len(frames), backbone.tokens_per_frame, backbone.image_dim))
            for start in range(0, len(frames), CHUNK):
                pixels = np.array(frames[start : start + CHUNK])  # a copy: torch warns of arrays that it must not write to
                features[start : start + CHUNK] = backbone.encode_frames(pixels).cpu().numpy()
            features.flush()
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise RoboprefError(f"{path}: the feature cache is damaged ({error}); delete this file and run again.") from error
