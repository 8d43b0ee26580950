"""Factored VLP [ours]: what was asked for and what has been done, apart.

    f(v | l) = k sigmoid(a (match - b)) (c + sigmoid(progress))

On tasks that it never saw, VLP answers from scene and words what it should read off the motion: its order of their episodes
falls with every training step (docs/lab.md).  Here it cannot.  `match`, the cosine of the clip's opening and the instruction,
sees no motion; `progress` sees motion and no words, as relations that mean the same in every task: from the hand to the objects,
and how hand, gripper and objects have moved.  They are read off the features by a ridge regression on the simulator's state.
Same interface as `VLP`.

Axes: N clips, T frames after the opening, P tokens a frame, D backbone features, L words, M instructions, B pairs, S members,
C model width, E numbers in an embedding.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopref.configs.vlp import ModelConfig
from robopref.preference.attention import SelfAttention, token_mean
from robopref.preference.dropout import ByteDropout
from robopref.preference.features import some_frames
from robopref.preference.small import STATE_SIZE

EMBEDDING = 64
PROGRESS_SCALE = 8.0  # of sigmoid(progress) while training: bounded, so that easy pairs do not pull the logits apart for ever
RIDGE = 1e-3
MOTION_SIZE = 36
OBJECTS = (4, 11)  # where the positions of the two objects begin in the state


class FactoredVLP(nn.Module):
    """f(v | l) from a cosine of opening and instruction, and from progress along the clip; the mean of some members' f."""

    def __init__(
        self, config: ModelConfig, frames: int, tokens_per_frame: int, image_dim: int, text_dim: int, scene_dim: int
    ) -> None:
        super().__init__()
        self.config = config
        self.shape = {
            "frames": frames,
            "tokens_per_frame": tokens_per_frame,
            "image_dim": image_dim,
            "text_dim": text_dim,
            "scene_dim": scene_dim,
        }
        self.image_mean: Tensor
        self.image_std: Tensor
        self.state_weight: Tensor
        self.state_bias: Tensor
        self.register_buffer("image_mean", torch.zeros(tokens_per_frame, image_dim))
        self.register_buffer("image_std", torch.ones(tokens_per_frame, image_dim))
        # What there is must not say where it is: on a task that was never seen it would be wrong.
        self.place_dim = image_dim - scene_dim or image_dim
        self.register_buffer("state_weight", torch.zeros(self.place_dim, STATE_SIZE))
        self.register_buffer("state_bias", torch.zeros(STATE_SIZE))
        self.members = nn.ModuleList(Member(config, config.frames or frames, scene_dim, text_dim) for _ in range(config.members))

    def each(self) -> list[Member]:
        """The S members."""
        return cast("list[Member]", list(self.members))

    def fit_state(self, features: np.ndarray, states: np.ndarray) -> None:
        """How the simulator's state is read off features: ridge regression of states (M, >= 18) on features (M, P, D)."""
        x = (torch.from_numpy(features.astype(np.float32)) - self.image_mean.cpu()) / self.image_std.cpu()
        x = torch.cat([x.mean(1)[:, : self.place_dim], torch.ones(len(x), 1)], dim=1).double()
        y = torch.from_numpy(np.asarray(states[:, :STATE_SIZE], np.float64))
        solved = torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).float()
        self.state_weight.copy_(solved[:-1])
        self.state_bias.copy_(solved[-1])

    def encode_video(self, features: Tensor) -> Tensor:
        """features (N, 1 + T, P, D) -> (N, S, E + 1): embeddings of the opening, of length one, and logits of progress."""
        x = ((features - self.image_mean) / self.image_std).mean(2)
        return torch.cat([self.embed_opening(x[:, 0]), self.progress(x)[:, :, None]], dim=2)

    def embed_opening(self, x: Tensor) -> Tensor:
        """Standardised features x (N, D) of one frame a clip -> embeddings of length one (N, S, E)."""
        return torch.stack([member.embed_opening(x[:, -self.shape["scene_dim"] :]) for member in self.each()], dim=1)

    def progress(self, x: Tensor) -> Tensor:
        """Standardised features x (N, 1 + T, D) -> logits of progress (N, S)."""
        x = torch.cat([x[:, :1], some_frames(x[:, 1:], self.config.frames or self.shape["frames"])], dim=1)
        state = x[..., : self.place_dim] @ self.state_weight + self.state_bias
        return torch.cat([member.progress(state) for member in self.each()], dim=1)

    def encode_text(self, words: Tensor, mask: Tensor) -> Tensor:
        """words (M, L, Dt), mask (M, L) True = real -> embeddings of length one (M, S, E)."""
        return torch.stack([member.encode_text(words, mask) for member in self.each()], dim=1)

    def temperatures(self) -> Tensor:
        """Of each member's InfoNCE: (S,)."""
        return torch.stack([member.log_temperature for member in self.each()]).exp()

    def score(self, video: Tensor, text: Tensor, mask: Tensor, clips: Tensor, sentences: Tensor) -> Tensor:
        """f(v | l) of B pairs, (B,): rows `clips` (B,) of video (N, S, E + 1) under rows `sentences` (B,) of text (M, S, E)."""
        match = (video[clips, :, :-1] * text[sentences]).sum(2)
        sharpness, threshold, floor = self.config.gate
        gate = torch.sigmoid(sharpness * (match - threshold))
        return self.config.scale * (gate * (floor + torch.sigmoid(video[clips, :, -1]))).mean(1)


class Member(nn.Module):
    """The trained part of one f: networks of match and of progress."""

    def __init__(self, config: ModelConfig, frames: int, scene_dim: int, text_dim: int) -> None:
        super().__init__()
        c, drop = config.dim, config.dropout
        self.config = config
        self.log_temperature = nn.Parameter(torch.tensor(2.0))
        self.opening_in, self.opening_out = nn.Linear(scene_dim, c), _head(c, 4 * c, EMBEDDING, drop)
        self.text_in, self.text_out = nn.Linear(text_dim, c), _head(c, 4 * c, EMBEDDING, drop)
        self.word_order = nn.Parameter(torch.randn(77, c) * 0.02)
        self.text_self = nn.ModuleList(SelfAttention(c, config.heads, drop) for _ in range(config.layers))
        self.motion_in, self.motion_out = nn.Linear(MOTION_SIZE, c), _head(c, 2 * c, 1, drop)
        self.time = nn.Parameter(torch.randn(frames, c) * 0.02)
        self.motion_self = nn.ModuleList(SelfAttention(c, config.heads, drop) for _ in range(config.layers))

    def embed_opening(self, scene: Tensor) -> Tensor:
        """What there is in the opening, scene (N, scene_dim) -> embeddings of length one (N, E)."""
        return F.normalize(self.opening_out(self.opening_in(scene)), dim=1)

    def progress(self, state: Tensor) -> Tensor:
        """state (N, 1 + T, 18), the opening's first -> logits of progress (N, 1)."""
        if self.training:
            state = misread(state, *self.config.object_error)
        y = self.motion_in(motion(state)) + self.time
        for layer in self.motion_self:
            y = layer(y)
        return self.motion_out(y.mean(1))

    def encode_text(self, words: Tensor, mask: Tensor) -> Tensor:
        """words (M, L, Dt), mask (M, L) True = real -> embeddings of length one (M, E)."""
        if self.training:
            words = mishear(words, mask, self.config.word_error)
        x = self.text_in(words) + self.word_order[: words.shape[1]]
        for layer in self.text_self:
            x = layer(x, mask)
        return F.normalize(self.text_out(token_mean(x, mask)), dim=1)


def _head(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), ByteDropout(dropout), nn.Linear(hidden, out))


def misread(state: Tensor, bias: float, wander: float) -> Tensor:
    """state (N, 1 + T, 18) with objects seen wrongly, by a normal error a clip and one a frame (metres a coordinate).

    On a task that it never saw the small backbone reads the hand to 1 cm, but the object a decimetre off, by 4 cm more from frame
    to frame; on train tasks progress would learn to trust it (docs/lab.md).
    """
    n, frames, _ = state.shape
    wrong = state.clone()
    for first in OBJECTS:
        error = bias * torch.randn(n, 1, 3, device=state.device) + wander * torch.randn(n, frames, 3, device=state.device)
        wrong[..., first : first + 3] += error
    return wrong


def mishear(words: Tensor, mask: Tensor, share: float) -> Tensor:
    """words (M, L, Dt) with a share of them drawn anew, as like a word as noise can be; mask (M, L) True = real.

    To hashed words a synonym that no train task uses is noise, and a sentence should be understood by its other words.
    """
    known = words[mask]
    noise = known.mean(0) + known.std(0) * torch.randn_like(words)
    return torch.where((torch.rand_like(words[..., :1]) < share), noise, words)


def motion(state: Tensor) -> Tensor:
    """What hand and objects do, in terms that mean the same in every task: state (N, 1 + T, 18) -> (N, T, 36), of order one.

    Hand to both objects; how hand, gripper and objects have moved since the opening; the hand's step from frame to frame; and
    the lengths of these.  state: hand xyz, gripper, two objects of xyz and quaternion; metres.
    """
    hand, gripper, *objects = state.split([3, 1, 3, 4, 3, 4], dim=2)
    things, turns = objects[::2], objects[1::2]

    def moved(x: Tensor) -> Tensor:
        return x[:, 1:] - x[:, :1]

    def length(x: Tensor) -> Tensor:
        return x.norm(dim=2, keepdim=True)

    step = torch.cat([torch.zeros_like(hand[:, :1]), hand[:, 2:] - hand[:, 1:-1]], dim=1)
    reach = [hand - thing for thing in things]
    # A reach is a decimetre, an object moves five centimetres, a hand moves as much between two frames.
    return torch.cat(
        [
            *(10 * r[:, 1:] for r in reach),
            10 * moved(hand),
            *(20 * moved(thing) for thing in things),
            *(2 * moved(turn) for turn in turns),
            3 * moved(gripper),
            20 * step,
            *(10 * length(r[:, 1:]) for r in reach),
            10 * length(moved(hand)),
            *(20 * length(moved(thing)) for thing in things),
            20 * length(step),
            10 * moved(length(reach[0])),
            *(2 * length(moved(turn)) for turn in turns),
        ],
        dim=2,
    )


def match_loss(openings: Tensor, sentences: Tensor, same: Tensor, temperatures: Tensor, weights: tuple[float, float]) -> Tensor:
    """Which opening belongs to a sentence, and which sentence to an opening: InfoNCE both ways, with several positives.

    The first is IVP with all clips of the batch as candidates (its choice model, Plackett-Luce, is Eq. 2 for two), the second
    ILP's counterpart: a foreign instruction is told from the own one.  openings (B, S, E), sentences (B', S, E) of length one,
    same (B, B') True = of one task, temperatures (S,), weights of the two; mean over members.  Source: van den Oord et al.,
    arXiv 1807.03748, Eq. 4.
    """
    logits = torch.einsum("ase,bse->abs", openings, sentences) * temperatures
    positive = same.float()[:, :, None]
    opening_of = -(positive / positive.sum(0, keepdim=True) * F.log_softmax(logits, 0)).sum(0).mean()
    sentence_of = -(positive / positive.sum(1, keepdim=True) * F.log_softmax(logits, 1)).sum(1).mean()
    return weights[0] * opening_of + weights[1] * sentence_of


def progress_loss(worse: Tensor, better: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of P(better) (Eq. 3) on progress alone; logits of progress (B, S) each, weights (B,); mean over both."""
    return (weights[:, None] * F.softplus(PROGRESS_SCALE * (torch.sigmoid(worse) - torch.sigmoid(better)))).mean()
