"""The small backbone: sees what the simulator knows, needs no download.

A convolutional encoder of about a million parameters is trained (preference/pretrain.py) to read the simulator's own state,
gripper and object positions, off 64 px frames.  Its features are what VLP looks at by default [ours; a pretrained CLIP is
one config value away].  Words are hashed into fixed vectors, so no vocabulary is learnt and none can be missing.

Axes: N images, P tokens a frame, D features, L words.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robopref.configs.checkpoint import load_model, load_strict, save_model
from robopref.configs.errors import RoboprefError
from robopref.configs.files import digest

KIND = "small-backbone"
STATE_SIZE = 18  # hand xyz, gripper opening, two objects of xyz and quaternion: the first half of a Meta-World observation
STRIDE = 4  # pixels of a frame, each way, for one square of the maps that positions and parts are read off
TEXT_SIZE = 64
MAX_WORDS = 24


@dataclass(frozen=True)
class SmallConfig:
    """Shape of the encoder; `size` is the height and width of the frames in pixels."""

    size: int = 64
    width: int = 32
    features: int = 128
    keypoints: int = 48
    parts: tuple[str, ...] = ()
    """Names of parts of the scene (embodied/parts.py) that it can point at; the token also says which of them are in the picture."""


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
    text_dim = TEXT_SIZE

    def __init__(self, encoder: SmallEncoder, weights_digest: str, device: str = "cpu") -> None:
        self.encoder = encoder.eval().to(device)
        self.image_dim = encoder.config.features + len(encoder.config.parts)
        self.scene_dim = len(encoder.config.parts) or self.image_dim
        self.frame_size = encoder.config.size
        self.digest = weights_digest
        self._device = device

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> SmallBackbone:
        """Read a folder written by `save`; a wrong or damaged one raises `RoboprefError`."""
        state, config = load_model(folder, KIND)
        encoder = SmallEncoder(SmallConfig(**config["encoder"] | {"parts": tuple(config["encoder"]["parts"])}))
        load_strict(encoder, state, folder)
        return cls(encoder, digest(Path(folder) / "model.safetensors"), device)

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
        """texts -> word vectors (N, L, 64) and mask (N, L), True = a real word; L = the longest; more than 24 words raise."""
        return hash_words(texts)


def hash_words(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Fixed vectors of the words of each text: (N, L, 64) float32 and a mask (N, L), True = a real word.

    Each word is the normalised sum of random vectors of itself and of its letter trigrams (fastText's idea, with nothing
    learnt), so that "closing" and "close" are near each other and an unseen word is never out of vocabulary.
    """
    words = [re.findall(r"[a-z0-9]+", text.lower()) for text in texts]
    if not all(words):
        raise RoboprefError("An instruction is empty; say what the robot should do, e.g. 'close the drawer'.")
    longest = max(words, key=len)
    if len(longest) > MAX_WORDS:
        raise RoboprefError(
            f"An instruction has {len(longest)} words ({' '.join(longest[:4])} ...), the small backbone reads {MAX_WORDS}: "
            "say it shorter."
        )
    vectors = np.zeros((len(texts), len(longest), TEXT_SIZE), np.float32)
    mask = np.zeros((len(texts), len(longest)), bool)
    for i, sentence in enumerate(words):
        for j, word in enumerate(sentence):
            vectors[i, j] = _word_vector(word)
        mask[i, : len(sentence)] = True
    return torch.from_numpy(vectors), torch.from_numpy(mask)


@lru_cache(maxsize=4096)
def _word_vector(word: str) -> np.ndarray:
    padded = f"<{word}>"
    pieces = [word, *(padded[i : i + 3] for i in range(len(padded) - 2))]
    weights = [2.0, *[1.0] * (len(pieces) - 1)]  # the word itself counts most
    vector = sum(w * _piece_vector(piece) for w, piece in zip(weights, pieces, strict=True))
    return np.asarray(vector / np.linalg.norm(vector) * TEXT_SIZE**0.5, np.float32)


@lru_cache(maxsize=16384)
def _piece_vector(piece: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(piece.encode())).standard_normal(TEXT_SIZE)
