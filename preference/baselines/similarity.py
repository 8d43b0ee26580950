"""Scores by how near a clip and its instruction are in a joint space: CLIP's cosine, VLM-RM and RoboCLIP.

They differ in a formula; the space is that of any CLIP (clip_space.py) or of the small contrastive model (contrastive.py).
What is the papers' and what ours: docs/vlp.md.

Axes: N clips, T frames after the opening, K vectors a clip (T, or 1 where the model embeds a clip whole), P tokens a frame,
D features, E joint space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robopref.preference.backbone import FrameEncoder
from robopref.preference.features import encode_clips

CHUNK = 256  # clips embedded at a time

Measure = Callable[[Tensor, Tensor], Tensor]
"""Clips (N, K, E) and the goals that their instructions are, (N, E), all of length 1 -> (N,)."""


class JointSpace(Protocol):
    """Embeds frames, or whole clips, and sentences in one space."""

    digest: str
    camera: str
    frame_size: int
    logit_scale: float
    """What the model's own softmax multiplies cosines by."""

    @property
    def backbone(self) -> FrameEncoder:
        """What the features come from."""

    def embed_clips(self, features: np.ndarray) -> Tensor:
        """features (N, T, P, D) -> (N, K, E), of length 1."""

    def embed_texts(self, texts: list[str]) -> Tensor:
        """texts (N) -> (N, E), of length 1."""


def cosine(clips: Tensor, goals: Tensor) -> Tensor:
    """CLIP's likeness: (N, K, E) and (N, E), of length 1 -> (N, K); VLM-RM's reward without regularisation."""
    return torch.einsum("nke,ne->nk", clips, goals)


def goal_baseline(clips: Tensor, goals: Tensor, neutral: Tensor, alpha: float) -> Tensor:
    """1 - |alpha proj_L s + (1 - alpha) s - g|^2 / 2, with L the line through g and b: (N, K) [VLM-RM, Definition 1].

    Rocamonde et al., "Vision-Language Models are Zero-Shot Reward Models for Reinforcement Learning", ICLR 2024.  clips: s
    (N, K, E).  goals: g (N, E).  neutral: b (E), the baseline sentence.  All of length 1.  alpha = 0 is the cosine; 1 looks only
    at what tells goal and baseline apart.
    """
    line = goals - neutral
    line = line / line.norm(dim=1, keepdim=True).clamp_min(1e-6)  # an instruction that is the baseline sentence has no line
    gap = clips - goals[:, None]  # g lies on L, so proj_L s - g is the projection of s - g
    on_line = torch.einsum("nke,ne->nk", gap, line)[..., None] * line[:, None]
    return 1.0 - 0.5 * (alpha * on_line + (1.0 - alpha) * gap).square().sum(-1)


def whole_clip(clips: Tensor, goals: Tensor) -> Tensor:
    """Cosine of a clip as a whole and a sentence, one reward an episode: (N,) [RoboCLIP].

    Sontakke et al., "RoboCLIP: One Demonstration is Enough to Learn Robot Policies", NeurIPS 2023, its variant with a text
    instead of a demonstration.  The paper's encoder is S3D, which sees motion, and its likeness the scalar product; ours are the
    model that the space brings (frame by frame, its vectors are averaged) and the cosine.
    """
    return cosine(F.normalize(clips.mean(1, keepdim=True), dim=2), goals)[:, 0]


def last_frame(rewards: Tensor) -> Tensor:
    """Rewards of frames (N, K) -> of clips, (N,): where the clip ends."""
    return rewards[:, -1]


def mean_frame(rewards: Tensor) -> Tensor:
    """Rewards of frames (N, K) -> of clips, (N,): their return, whatever the number of frames."""
    return rewards.mean(1)


class Similarity:
    """A `FeatureScorer` of likeness in a joint space.

    f is the likeness times the space's logit scale, so that sigmoid(f_b - f_a) is the model's own softmax over the two clips:
    the probability that the sentence goes with b.  A cosine alone would make every label a half.
    """

    def __init__(self, space: JointSpace, measure: Measure, digest: str, frames: int) -> None:
        self.space, self.measure = space, measure
        self.digest, self.frames = digest, frames
        self.camera, self.frame_size = space.camera, space.frame_size

    @property
    def backbone(self) -> FrameEncoder:
        """What the features come from."""
        return self.space.backbone

    @torch.no_grad()
    def score_features(self, features: np.ndarray, instructions: list[str]) -> np.ndarray:
        """features (N, (1 + T) * P, D) and one instruction a clip -> f(v | l), (N,) float64; the opening is not looked at."""
        unique = sorted(set(instructions))
        texts = self.space.embed_texts(unique)
        which = torch.tensor([unique.index(sentence) for sentence in instructions], device=texts.device)
        tokens = self.backbone.tokens_per_frame
        scores = []
        for start in range(0, len(features), CHUNK):
            chunk = np.asarray(features[start : start + CHUNK], np.float32)
            frames = chunk.reshape(len(chunk), -1, tokens, chunk.shape[-1])[:, 1:]
            goals = texts[which[start : start + CHUNK]]
            scores.append(self.measure(self.space.embed_clips(frames), goals))
        return self.space.logit_scale * torch.cat(scores).double().cpu().numpy()

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        """clips (N, 1 + T, H, W, 3) uint8, instructions (N) -> f(v | l), (N,)."""
        return self.score_features(encode_clips(clips, self.backbone), instructions)
