"""The joint space of any CLIP of open_clip: one vector a frame and one a sentence.

Axes: N clips, frames or texts, T frames after the opening, E joint space.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robopref.embodied.render import DEFAULT_CAMERA
from robopref.preference.open_clip import OpenClipBackbone


class ClipSpace:
    """A `JointSpace`, and the frame encoder whose features are the vectors themselves."""

    tokens_per_frame = 1

    def __init__(self, clip: OpenClipBackbone, device: str = "cpu") -> None:
        self._clip, self._device = clip, device
        self.name, self.digest = f"{clip.name}-joint", f"{clip.digest}-joint"  # its patches are cached under the plain names
        self.image_dim = int(clip.embed_texts(["a"]).shape[1])
        self.camera, self.frame_size = DEFAULT_CAMERA, max(clip.input_size)
        self.logit_scale = clip.logit_scale

    @property
    def backbone(self) -> ClipSpace:
        """Itself."""
        return self

    def encode_frames(self, frames: np.ndarray) -> Tensor:
        """frames (N, H, W, 3) uint8 -> (N, 1, E) float32."""
        return self._clip.embed_frames(frames)[:, None]

    def embed_clips(self, features: np.ndarray) -> Tensor:
        """features (N, T, 1, E) -> (N, T, E), of length 1 again after the cache's rounding."""
        return F.normalize(torch.from_numpy(features).to(self._device)[:, :, 0], dim=2)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """texts (N) -> (N, E), of length 1."""
        return self._clip.embed_texts(texts)
