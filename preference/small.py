"""The small backbone: sees what the simulator knows, needs no download.

A convolutional encoder of about a million parameters is trained (preference/pretrain.py) to read the simulator's own state,
gripper and object positions, off 64 px frames, and to name the parts of the scene.  Its features are what VLP looks at by
default [ours; a pretrained CLIP is one config value away].  It reads fixed vectors of words (preference/words.py).

Axes: N images, P tokens a frame, D features, L words.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robopref.configs.checkpoint import built_like, load_model, save_model
from robopref.configs.errors import RoboprefError
from robopref.configs.files import as_written, digest
from robopref.configs.finite import check_weights
from robopref.configs.ranges import Count, Pixels, check
from robopref.preference.words import HashedWords, Words, unread

KIND = "small-backbone"
STATE_SIZE = 18  # hand xyz, gripper opening, two objects of xyz and quaternion: the first half of a Meta-World observation
STRIDE = 4  # pixels of a frame, each way, for one square of the maps that positions and parts are read off


@dataclass(frozen=True)
class SmallConfig:
    """Shape of the encoder; `size` is the height and width of the frames in pixels."""

    size: Pixels = 64
    width: Count = 32
    features: Count = 128
    keypoints: Count = 48
    parts: tuple[str, ...] = ()
    """Parts of the scene (embodied/parts.py) that it can point at; the token also says which of them are in the picture."""


class SmallEncoder(nn.Module):
    """Frames -> one token: where things are, from which the state is read off, and what there is, wherever it is.

    One token, because a 2 x 2 grid of appearance beside it made VLP no better on held-out train tasks and five times as
    slow (docs/lab.md).
    """

    tokens_per_frame = 1

    def __init__(self, config: SmallConfig) -> None:
        super().__init__()
        w, d = config.width, config.features
        self.config = config
        self.stem = nn.Sequential(
            nn.Conv2d(3, w, 5, stride=2, padding=2),
            nn.GroupNorm(4, w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            nn.GroupNorm(4, 2 * w),
            nn.ReLU(),
            nn.Conv2d(2 * w, 2 * w, 3, padding=1),
            nn.GroupNorm(4, 2 * w),
            nn.ReLU(),
        )
        self.deep = nn.Sequential(
            nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1),
            nn.GroupNorm(4, 4 * w),
            nn.ReLU(),
            nn.Conv2d(4 * w, d, 3, padding=1),
            nn.GroupNorm(4, d),
            nn.ReLU(),
        )
        self.heat = nn.Conv2d(2 * w, config.keypoints, 1)
        self.place = nn.Sequential(nn.Linear(2 * config.keypoints + d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d), nn.ReLU())
        self.state = nn.Linear(d, STATE_SIZE)
        if config.parts:
            self.look = nn.Sequential(
                nn.Conv2d(2 * w, 2 * w, 3, padding=1), nn.GroupNorm(4, 2 * w), nn.ReLU(), nn.Conv2d(2 * w, len(config.parts), 1)
            )
        self.to(memory_format=torch.channels_last)  # five times faster on a CPU than the default order

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (N, 3, H, W) in [0, 1] -> tokens (N, 1, D), standardised state estimate (N, 18)."""
        near = self.near(frames)
        place = self.locate(near)
        token = torch.cat([place, self.presence(near)], dim=1) if self.config.parts else place
        return token[:, None], self.state(place)

    def near(self, frames: Tensor) -> Tensor:
        """frames (N, 3, H, W) in [0, 1] -> maps (N, 2w, H/4, W/4)."""
        out: Tensor = self.stem((frames - 0.5).contiguous(memory_format=torch.channels_last))
        return out

    def locate(self, near: Tensor) -> Tensor:
        """Where things are: (N, `features`)."""
        points = soft_argmax(self.heat(near))  # (N, 2K)
        out: Tensor = self.place(torch.cat([points, self.deep(near).mean((2, 3))], dim=1))
        return out

    def presence(self, near: Tensor) -> Tensor:
        """What there is: for each part the highest probability at any place, (N, parts); always one for table and robot."""
        return self.look(near).softmax(1).amax((2, 3))


def soft_argmax(heat: Tensor) -> Tensor:
    """Expected position of each heat map: (N, K, H, W) -> (N, 2K) in [-1, 1]; positions survive where pooling would blur them.

    Spatial softmax of Levine et al., "End-to-End Training of Deep Visuomotor Policies", JMLR 2016.
    """
    n, k, h, w = heat.shape
    probability = heat.flatten(2).softmax(-1).view(n, k, h, w)
    x = torch.linspace(-1.0, 1.0, w, device=heat.device)
    y = torch.linspace(-1.0, 1.0, h, device=heat.device)
    return torch.cat([(probability.sum(2) * x).sum(-1), (probability.sum(3) * y).sum(-1)], dim=1)


class SmallBackbone:
    """`SmallEncoder` behind the Backbone interface of preference/backbone.py."""

    name = "small"
    tokens_per_frame = SmallEncoder.tokens_per_frame

    def __init__(self, encoder: SmallEncoder, weights_digest: str, device: str = "cpu", words: Words | None = None) -> None:
        self.encoder = encoder.eval().to(device)
        self.image_dim = encoder.config.features + len(encoder.config.parts)
        self.scene_dim = len(encoder.config.parts) or self.image_dim
        self.frame_size = encoder.config.size
        self.digest = weights_digest
        self._words = words or HashedWords()
        self.text_dim = self._words.size
        self._device = device

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", words: Words | None = None) -> SmallBackbone:
        """Read a folder written by `save`; a wrong or damaged one raises `RoboprefError`."""
        state, config = load_model(folder, KIND)
        with as_written(folder, "run `robopref pretrain` again"):
            shape = SmallConfig(**config["encoder"] | {"parts": tuple(config["encoder"]["parts"])})
            check(shape)
            check_weights(state, folder)
            encoder = built_like(lambda: SmallEncoder(shape), state, folder)
        return cls(encoder, digest(Path(folder) / "model.safetensors"), device, words)

    @staticmethod
    def save(folder: Path, encoder: SmallEncoder) -> None:
        """Write what `load` reads."""
        save_model(folder, KIND, encoder.state_dict(), {"encoder": asdict(encoder.config)})

    @torch.no_grad()
    def encode_frames(self, frames: np.ndarray) -> Tensor:
        """frames (N, H, W, 3) uint8 -> tokens (N, 1, D) float32; H = W = `frame_size`."""
        if frames.shape[1:] != (self.frame_size, self.frame_size, 3):
            raise RoboprefError(f"The small backbone reads {self.frame_size} px frames, got {frames.shape[1:]}; draw them anew.")
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        return self.encoder(images)[0]

    def encode_text(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """texts -> word vectors (N, L, Dt) and mask (N, L), True = a real word; L = the longest; more than 24 words raise."""
        return self._words.encode(texts)

    def unread(self, text: str) -> list[str]:
        """Words in other letters than a to z, which `encode_text` leaves out."""
        return unread(text)
