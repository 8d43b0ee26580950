"""The small contrastive model: CLIP's recipe on a frozen backbone's features, for machines without CLIP's weights [ours].

Trained by baselines/train.py on train tasks; what a similarity (similarity.py) is taken in.  Objective and learnt temperature
follow Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; towers are ours.

Axes: N clips, T frames after the opening, K frames that the model sees at once, P tokens a frame, D and Dt features, M texts,
L words, E joint space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopref.configs.checkpoint import built_like, load_model
from robopref.configs.errors import RoboprefError
from robopref.configs.files import as_written, digest
from robopref.configs.finite import check_weights
from robopref.configs.ranges import check
from robopref.preference.attention import token_mean
from robopref.preference.backbone import load_backbone
from robopref.preference.vlp import View

KIND = "contrastive"
MOST_SCALE = 100.0  # as for CLIP, whose logits were no better when scaled by more


@dataclass(frozen=True)
class Shape:
    """Sizes of the two towers; `frames` is K: 1 for a model of pictures, T for one of clips."""

    frames: int
    image_dim: int
    text_dim: int
    hidden: int
    dim: int


class DualEncoder(nn.Module):
    """Two small towers that meet in a joint space."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.image_mean: Tensor
        self.image_std: Tensor
        # Features are standardised here, not in the cache: the statistics belong to the weights.
        self.register_buffer("image_mean", torch.zeros(shape.image_dim))
        self.register_buffer("image_std", torch.ones(shape.image_dim))
        self.image = nn.Sequential(
            nn.Linear(shape.frames * shape.image_dim, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.dim)
        )
        self.word = nn.Sequential(nn.Linear(shape.text_dim, shape.hidden), nn.GELU())
        self.sentence = nn.Linear(shape.hidden, shape.dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's first temperature

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by, at most 100; ()."""
        return self.log_scale.exp().clamp(max=MOST_SCALE)

    def standardise(self, features: Tensor) -> Tensor:
        """features (..., D) -> of mean 0 and deviation 1 over the training frames."""
        return (features - self.image_mean) / self.image_std

    def embed_images(self, standardised: Tensor) -> Tensor:
        """standardised (N, K, D) -> (N, E), of length 1."""
        return F.normalize(self.image(standardised.flatten(1)), dim=1)

    def embed_texts(self, words: Tensor, mask: Tensor) -> Tensor:
        """words (M, L, Dt), mask (M, L) True = real -> (M, E), of length 1; the order of the words is not looked at."""
        return F.normalize(self.sentence(token_mean(self.word(words), mask)), dim=1)


def info_nce(images: Tensor, texts: Tensor, scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Symmetric cross-entropy of who belongs to whom: row i of images (B, E) goes with row i of texts (B, E), of length 1.

    Radford et al. 2021, Fig. 3.  scale (): the inverse temperature.
    """
    logits = scale * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    loss = 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))
    accuracy = (logits.argmax(1) == own).float().mean()
    return loss, {"loss": loss.detach(), "accuracy": accuracy, "scale": scale.detach()}


class ContrastiveSpace:
    """A trained `DualEncoder` with its backbone as a `JointSpace`."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Read a folder written by baselines/train.py; anything missing, damaged or foreign raises `RoboprefError`."""
        folder = Path(folder)
        state, config = load_model(folder, KIND)
        with as_written(folder, "train it again"):
            view = View(config["camera"], config["frame_size"])
            check(view)
            self.backbone = load_backbone(config["backbone"], device, relative_to=folder)
            if self.backbone.digest != config["backbone_digest"]:
                raise RoboprefError(f"{folder}: the weights of {config['backbone']!r} have changed since; train it again.")
            shape = Shape(**config["shape"])
            check_weights(state, folder)
            model = built_like(lambda: DualEncoder(shape), state, folder)
        self._model, self._device = model.to(device).eval().requires_grad_(False), device
        self.digest = digest(folder / "model.safetensors")
        self.camera, self.frame_size = view.camera, view.frame_size
        self.logit_scale = model.scale.item()

    def embed_clips(self, features: np.ndarray) -> Tensor:
        """features (N, T, P, D) -> (N, T, E) by a model of pictures, (N, 1, E) by one of clips, of length 1."""
        frames = self._model.shape.frames
        if frames not in (1, features.shape[1]):
            raise RoboprefError(f"The contrastive model sees clips of {frames} frames, not {features.shape[1]}: set --frames.")
        seen = self._model.standardise(torch.from_numpy(features).to(self._device).mean(2))  # (N, T, D)
        return self._model.embed_images(seen.reshape(-1, frames, seen.shape[2])).unflatten(0, (len(seen), -1))

    def embed_texts(self, texts: list[str]) -> Tensor:
        """texts (M) -> (M, E), of length 1."""
        words, mask = self.backbone.encode_text(texts)
        return self._model.embed_texts(words.to(self._device), mask.to(self._device))
