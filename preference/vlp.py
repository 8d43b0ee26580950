"""VLP: a score for (clip, instruction), f(v | l), and the loss that teaches it orders.

Liu et al., "VLP: Vision-Language Preference Learning for Embodied Manipulation", arXiv 2502.11918; no official code.  Depth,
fusion and head follow second-hand notes of the paper, width and optimiser are ours (docs/vlp.md says which is which).

Tokens of the frames and of the words each pass self-attention, then attend to each other, are averaged, joined and scored.
Axes: N clips, T frames after the opening, P tokens a frame, D backbone features, L words, M instructions, C model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopref.configs.checkpoint import built_like, load_model
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import as_written, digest
from robopref.configs.finite import check_weights
from robopref.configs.ranges import Pixels, Word, check
from robopref.configs.vlp import ModelConfig, OrdersConfig
from robopref.preference.arrays import as_clips, as_instructions
from robopref.preference.attention import CrossAttentionMean, SelfAttention
from robopref.preference.backbone import Backbone, load_backbone
from robopref.preference.dropout import ByteDropout
from robopref.preference.factored import FactoredVLP
from robopref.preference.features import encode_clips, some_frames

KIND = "vlp"


class VLP(nn.Module):
    """f(v | l).  `encode_video` and `encode_text` are separate, so that each clip and each sentence is encoded once."""

    def __init__(self, config: ModelConfig, frames: int, tokens_per_frame: int, image_dim: int, text_dim: int) -> None:
        super().__init__()
        c = config.dim
        self.config = config
        self.shape = {
            "frames": frames,
            "tokens_per_frame": tokens_per_frame,
            "image_dim": image_dim,
            "text_dim": text_dim,
        }
        self.image_mean: Tensor
        self.image_std: Tensor
        # Features are standardised here, not in the cache: the statistics belong to the weights.
        self.register_buffer("image_mean", torch.zeros(tokens_per_frame, image_dim))
        self.register_buffer("image_std", torch.ones(tokens_per_frame, image_dim))
        self.image_in = nn.Linear(image_dim, c)
        self.text_in = nn.Linear(text_dim, c)
        self.time = nn.Parameter(torch.randn(config.frames or frames, 1, c) * 0.02)
        self.place = nn.Parameter(torch.randn(1, tokens_per_frame, c) * 0.02)
        self.word_order = nn.Parameter(torch.randn(77, c) * 0.02)
        self.video_self = nn.ModuleList(SelfAttention(c, config.heads, config.dropout) for _ in range(config.layers))
        self.text_self = nn.ModuleList(SelfAttention(c, config.heads, config.dropout) for _ in range(config.layers))
        self.video_to_text = CrossAttentionMean(c, config.heads, config.dropout)
        self.text_to_video = CrossAttentionMean(c, config.heads, config.dropout)
        h1, h2 = config.hidden
        self.head = nn.Sequential(
            nn.LayerNorm(2 * c),
            nn.Linear(2 * c, h1),
            nn.GELU(),
            ByteDropout(config.dropout),
            nn.Linear(h1, h2),
            nn.GELU(),
            nn.Linear(h2, 1),
        )

    def encode_video(self, features: Tensor) -> Tensor:
        """features (N, 1 + T, P, D) -> video tokens (N, T * P, C); the opening is not looked at."""
        x = (some_frames(features[:, 1:], len(self.time)) - self.image_mean) / self.image_std
        x = (self.image_in(x) + self.time + self.place).flatten(1, 2)
        for layer in self.video_self:
            x = layer(x)
        return x

    def encode_text(self, words: Tensor, mask: Tensor) -> Tensor:
        """words (M, L, Dt), mask (M, L) True = real -> text tokens (M, L, C)."""
        x = self.text_in(words) + self.word_order[: words.shape[1]]
        for layer in self.text_self:
            x = layer(x, mask)
        return x

    def score(self, video: Tensor, text: Tensor, mask: Tensor, clips: Tensor, sentences: Tensor) -> Tensor:
        """f(v | l) of B pairs, (B,): rows `clips` (B,) of video (N, V, C) under rows `sentences` (B,) of text (M, L, C).

        mask (M, L): True = a real word.
        """
        seen = self.video_to_text(video, text, (clips, sentences), real_context=mask)
        read = self.text_to_video(text, video, (sentences, clips), real_x=mask)
        return self.head(torch.cat([seen, read], dim=1)).squeeze(1)


def build(config: ModelConfig, shape: dict[str, int]) -> VLP | FactoredVLP:
    """The model of `config.architecture`, untrained.  shape: as a model's own, of which the paper's needs no `scene_dim`."""
    if config.frames is not None and not 1 <= config.frames <= shape["frames"]:
        raise UsageError(f"model.frames={config.frames}: a clip has {shape['frames']}; null: all of them")
    if config.architecture == "factored":
        return FactoredVLP(config, **shape)
    return VLP(config, **{name: size for name, size in shape.items() if name != "scene_dim"})


def order_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of P(b > a | l) = sigmoid(f_b - f_a) (Eq. 2-3).  logit = f_b - f_a and target, both (B,); mean over B."""
    return F.binary_cross_entropy_with_logits(logit, target)


def vlp_loss(scores: dict[str, Tensor], label: Tensor, weights: OrdersConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 4: CE(ITP) + l1 CE(ILP) + l2 [CE(a over other) + CE(b over other)], and ours: + lp CE(later over earlier).

    scores, each (B,): a, b and other under the own instruction; foreign_a and foreign_b under the foreign one; earlier and
    later of one expert episode when progress orders are used.  label (B,): P(b preferred).  An ILP loss of ln 2 is perfect
    indifference.
    """
    itp = scores["b"] - scores["a"]
    ilp = scores["foreign_b"] - scores["foreign_a"]
    over_other = torch.cat([scores["a"] - scores["other"], scores["b"] - scores["other"]])
    losses = {
        "itp": order_loss(itp, label),
        "ilp": order_loss(ilp, torch.full_like(ilp, 0.5)),
        "ivp": 2 * order_loss(over_other, torch.ones_like(over_other)),  # the mean over 2B, times two: a sum of two means
    }
    loss = weights.itp_weight * losses["itp"] + weights.ilp_weight * losses["ilp"] + weights.ivp_weight * losses["ivp"]
    accuracies = {
        "itp_accuracy": ((itp > 0) == (label > 0.5)).float().mean(),
        "ivp_accuracy": (over_other > 0).float().mean(),
    }
    if "later" in scores:
        progress = scores["later"] - scores["earlier"]
        losses["progress"] = order_loss(progress, torch.ones_like(progress))
        loss = loss + weights.progress_weight * losses["progress"]
        accuracies["progress_accuracy"] = (progress > 0).float().mean()
    metrics: dict[str, Any] = {"loss": loss.detach(), **{k: v.detach() for k, v in losses.items()}, **accuracies}
    return loss, metrics


@dataclass(frozen=True)
class View:
    """How a VLP looks: the camera, by its name, and the side of its pictures."""

    camera: Word
    frame_size: Pixels


class VLPScorer:
    """A trained VLP with its backbone: a `Scorer` of clips from pixels and an instruction.

    Encoding is separate from scoring, so that a clip is encoded once however many instructions or pairs it is in.
    """

    def __init__(self, model: VLP | FactoredVLP, backbone: Backbone, digest: str, camera: str, frame_size: int) -> None:
        self.model, self.backbone = model.eval(), backbone
        self.digest, self.camera, self.frame_size = digest, camera, frame_size
        self.frames = model.shape["frames"]

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> VLPScorer:
        """Read a folder written by `robopref train-vlp`; anything missing, damaged or foreign raises `RoboprefError`."""
        folder = Path(folder)
        from robopref.configs.hydra import to_dataclass  # slow to import, and training needs none of it

        state, config = load_model(folder, KIND)
        with as_written(folder, "run `robopref train-vlp` again"):
            shape, view = config["shape"], View(config["camera"], config["frame_size"])
            check(view)
            backbone = load_backbone(config["backbone"], device, relative_to=folder)
            if (backbone.tokens_per_frame, backbone.image_dim) != (shape["tokens_per_frame"], shape["image_dim"]):
                raise RoboprefError(f"{folder}: trained on another backbone than {config['backbone']!r}; train VLP again.")
            if backbone.digest != config["backbone_digest"]:
                raise RoboprefError(f"{folder}: the weights of {config['backbone']!r} have changed since; train VLP again.")
            told = to_dataclass(ModelConfig, config["model"])
            if told.dim % told.heads:
                raise ValueError(f"{told.heads} heads of width {told.dim} together")
            check_weights(state, folder)
            if max(told.layers, told.members, shape["frames"]) > sum(tensor.numel() for tensor in state.values()):
                raise ValueError(f"{told.layers} layers, {told.members} members, {shape['frames']} frames")
            model = built_like(lambda: build(told, shape), state, folder)
        return cls(model.to(device), backbone, digest(folder / "model.safetensors"), view.camera, view.frame_size)

    def encode(self, clips: np.ndarray) -> np.ndarray:
        """clips (N, 1 + T, H, W, 3) uint8 -> backbone features (N, (1 + T) * P, D) float16, what `score_features` reads."""
        return encode_clips(clips, self.backbone)

    @torch.no_grad()
    def score_features(self, features: np.ndarray, instructions: str | Sequence[str]) -> np.ndarray:
        """features (N, (1 + T) * P, D) and one instruction a clip, or one for all -> f(v | l), (N,) float64."""
        instructions = as_instructions(instructions, len(features))
        device = next(self.model.parameters()).device
        tokens = self.model.shape["tokens_per_frame"]
        unique = sorted(set(instructions))
        words, mask = self.backbone.encode_text(unique)
        text, mask = self.model.encode_text(words.to(device), mask.to(device)), mask.to(device)
        which = torch.tensor([unique.index(sentence) for sentence in instructions], device=device)
        scores = []
        for start in range(0, len(features), 64):
            chunk = torch.from_numpy(np.asarray(features[start : start + 64], np.float32)).to(device)
            video = self.model.encode_video(chunk.unflatten(1, (1 + self.frames, tokens)))
            clips = torch.arange(len(chunk), device=device)
            scores.append(self.model.score(video, text, mask, clips, which[start : start + 64]))
        return torch.cat(scores).double().cpu().numpy()

    def score(self, clips: np.ndarray | Sequence[np.ndarray], instructions: str | Sequence[str]) -> np.ndarray:
        """Clips of any length and size, uint8 or floats from 0 to 1 (arrays.as_clips), and instructions -> f(v | l), (N,)."""
        return self.score_features(self.encode(as_clips(clips, self.frames, self.frame_size)), instructions)
