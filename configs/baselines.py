"""Settings of the baseline labellers (preference/baselines) and of the small contrastive model that some look through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robopref.configs.ranges import Count, Device, NotNegative, Positive, Seeds, Share, Workers


@dataclass(frozen=True)
class BaselineConfig:
    """What a baseline of single clips looks through, and its constants."""

    encoder: str | None = None
    """cosine, vlm-rm, roboclip: contrastive:FOLDER (python -m robopref.preference.baselines.train) or
    open_clip:NAME:WEIGHTS; goal-image: small:FOLDER or open_clip:NAME:WEIGHTS.
    """
    goal: Path | None = None
    """goal-image: a picture of the finished task, or its frame bank, whose first expert episode's last frame it then is."""
    frames: Literal["last", "mean"] = "mean"
    """cosine and vlm-rm: the reward of the clip's last frame, or the mean over its frames, which did better on train tasks."""
    neutral: str = "a robot arm at a table"
    """vlm-rm: the baseline sentence, which says what is there without saying what is to be done; ours."""
    alpha: Share = 0.5
    """vlm-rm: how much of what does not lie on the line from baseline to goal is left out, 0 (cosine) to 1; 0.5 is ours."""


@dataclass(frozen=True)
class ContrastiveConfig:
    """Train the small contrastive model: InfoNCE between what experts achieve and the sentences that ask for it."""

    clips: Path = Path("data/clips")
    """Folder of frame banks, one a task (`robopref collect --clips`)."""
    out: Path = Path("runs/contrastive")
    """Folder of models, one a seed: seed-0, seed-1, ..."""
    backbone: str = "small:runs/backbone"
    """Frozen encoder of frames and words: small:FOLDER or open_clip:NAME:WEIGHTS."""
    tasks: tuple[str, ...] = ("paper:train",)
    """Tasks to learn from: never one that is tested on."""
    sees: Literal["frame", "clip"] = "frame"
    """frame: one picture, as CLIP does; clip: the frames of a clip in their order, for roboclip."""
    seeds: Seeds = (0,)
    steps: Count = 400
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.05
    dim: Count = 64
    """Of the joint space."""
    hidden: Count = 256
    noise: NotNegative = 0.1
    """Standard deviation of the noise on the standardised features while training, as for VLP."""
    features: Path | None = None
    """Folder of cached frame features, to share with other trainings; None: `out`/features."""
    threads: Workers = 2
    device: Device = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""
