"""Settings of `robopref pretrain` and `robopref train-vlp`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robopref.configs.ranges import (
    Count,
    Device,
    Natural,
    NotNegative,
    Number,
    PartShare,
    Positive,
    Seed,
    Share,
    SomeShare,
    Workers,
)


@dataclass(frozen=True)
class PretrainConfig:
    """Teach the small backbone to read the simulator's state off frames."""

    clips: Path = Path("data/clips")
    """Folder of frame banks, one a task (`robopref collect --clips`)."""
    out: Path = Path("runs/backbone")
    tasks: tuple[str, ...] = ("paper:train",)
    """Tasks to learn from: never one that VLP is tested on."""
    steps: Count = 1200
    batch: Count = 64
    lr: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    width: Count = 32
    features: Count = 128
    keypoints: Count = 48
    scene: bool = False
    """Also learn what is what in the picture (`robopref collect --parts`); what the factored VLP matches with words."""
    holdout: PartShare = 0.05
    """Share of episodes kept aside to measure the error of the state estimate."""
    seed: Seed = 0
    log_every: Count = 50
    checkpoint_every: Count = 200
    threads: Workers = 2
    device: Device = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of VLP; depth and fusion follow the paper's second-hand description, width is ours."""

    architecture: Literal["cross", "factored"] = "cross"
    """cross: attention both ways, as in the paper.  factored: ours, what was asked for and what has been done apart."""
    frames: Count | None = None
    """How many of a clip's frames after the opening it looks at, the last one always; None: all."""
    dim: Count = 96
    heads: Count = 4
    layers: Count = 2
    """Self-attention layers a modality [VLP, grade B]."""
    hidden: tuple[Count, Count] = (512, 256)
    """Score head [VLP, grade B]."""
    dropout: PartShare = 0.1
    gate: tuple[Number, Number, Number] = (5.0, 0.3, 0.5)
    """Ours, factored only: a, b and c of f; chosen on train tasks left out (docs/lab.md)."""
    members: Count = 1
    """Ours, factored only: networks of match and progress that are trained side by side and averaged."""
    scale: Positive = 1.0
    """Ours, factored only: k, how far from indifference the preferences are."""
    object_error: tuple[NotNegative, NotNegative] = (0.05, 0.02)
    """Ours, factored only: by how much progress is shown objects wrongly in training, a clip and a frame, in metres."""
    word_error: Share = 0.3
    """Ours, factored only: share of words that match hears as noise in training, as it hears words that are new to it."""


@dataclass(frozen=True)
class OrdersConfig:
    """Which preference orders are drawn, and what each weighs in the loss (Eq. 4)."""

    itp_weight: NotNegative = 1.0
    """Of the order by level; Eq. 4 has none, 0 leaves it out."""
    ilp_weight: NotNegative = 0.1
    """lambda_1 of Eq. 4: indifference under a foreign instruction."""
    ivp_weight: NotNegative = 0.5
    """lambda_2 of Eq. 4: the right task over another one."""
    progress_weight: NotNegative = 0.0
    """Ours, not the paper's: a later segment of an expert episode over an earlier one."""
    foreign_share: Share = 0.0
    """Ours: share of the worst clips in which another task's expert acts, instead of a random policy (level `foreign`)."""
    wandering_share: Share = 0.0
    """Ours: share of the worst clips in which random actions are held for a while (level `wandering`)."""
    prefix_share: Share = 0.0
    """Ours, factored only: pairs a tuple of an expert episode's prefix over a shorter one or over a random episode's."""
    later_share: Share = 0.0
    """Ours, factored only: pairs a tuple of a later segment of an expert episode over an earlier one."""
    reversed_share: Share = 0.0
    """Ours, factored only: share of these two whose expert is played backwards, where that shows something being done too."""
    episode_share: SomeShare = 1.0
    """Share of each task's and level's episodes that orders are drawn from."""
    wordings: str = "train"
    """Of the train tasks' instructions: train, those that tables call seen; varied (ours) adds synonyms of which no word is in a
    held-out wording; shared those of which some are."""
    segment_share: Share = 0.5
    """Share of tuples made of segments instead of whole episodes; ours, because it is segments that get labelled."""


@dataclass(frozen=True)
class TrainVLPConfig:
    """Train VLP on cached clip features."""

    clips: Path = Path("data/clips")
    out: Path = Path("runs/vlp")
    backbone: str = "small:runs/backbone"
    """`small:FOLDER`, or `open_clip:NAME:PRETRAINED` with a tag, a local file, or an `hf-hub:` name."""
    tasks: tuple[str, ...] = ("paper:train",)
    model: ModelConfig = field(default_factory=ModelConfig)
    orders: OrdersConfig = field(default_factory=OrdersConfig)
    steps: Count = 600
    batch: Count = 32
    """Tuples a step of all processes together; a tuple is two clips of one task, one of another, and both instructions."""
    lr: Positive = 3e-4
    weight_decay: NotNegative = 0.05
    warmup: Natural = 50
    feature_noise: NotNegative = 0.1
    """Standard deviation of the noise on the standardised features while training; ours."""
    features: Path | None = None
    """Folder of cached frame features, to share with other trainings; null: `out`/features."""
    seed: Seed = 0
    log_every: Count = 25
    checkpoint_every: Count = 200
    threads: Workers = 2
    """Processor threads of each process."""
    device: Device = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1."""
    devices: Count = 1
    """Processes on this machine that train together, one a GPU."""
    num_nodes: Count = 1
    """Machines that train together, started by torchrun or Slurm."""
    strategy: str = "ddp"
    """How Lightning Fabric starts and connects them."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""
