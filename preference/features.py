"""The cache of frame features: each frame of the banks is encoded once, whatever number of clips it is in.

Keyed by the backbone's digest (weights and preprocessing) and the frames' own digest, so a stale cache is never read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, digest, new_array_file
from robopref.datasets.clips import FrameBank
from robopref.preference.backbone import Backbone

CHUNK = 256  # frames encoded at a time


def cached_features(bank: FrameBank, backbone: Backbone, folder: Path) -> np.ndarray:
    """Features of every frame of `bank`, (M, P, D) float16 memory map in `folder`; encoded now unless they are there."""
    key = hashlib.sha256(backbone.digest.encode())
    for source in bank.folders:
        key.update(digest(source / "frames.npy").encode())
    path = folder / f"{backbone.name.replace('/', '_')}-{key.hexdigest()[:16]}.npy"
    shape = (len(bank), backbone.tokens_per_frame, backbone.image_dim)
    if not path.exists():
        with atomic_file(path) as aside:
            features = new_array_file(aside, np.float16, shape)
            for start in range(0, len(bank), CHUNK):
                rows = np.arange(start, min(start + CHUNK, len(bank)))
                features[rows] = backbone.encode_frames(bank.frames(rows)).cpu().numpy()
            features.flush()
    try:
        features = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise RoboprefError(f"{path}: the feature cache is damaged ({error}); delete this file and run again.") from error
    if features.shape != shape:
        raise RoboprefError(f"{path}: features of shape {features.shape}, expected {shape}; delete this file and run again.")
    return features
