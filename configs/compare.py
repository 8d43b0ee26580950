"""Settings of `python -m robopref.preference.compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from robopref.configs.baselines import BaselineConfig
from robopref.configs.ranges import Count, Device, Seed, Workers


@dataclass(frozen=True)
class CompareConfig:
    """Which models and baselines are compared, on which tasks."""

    table: Annotated[Path, tyro.conf.Positional]
    """CSV to append to."""
    model: tuple[str, ...] = ()
    """VLPs, NAME=RUN_FOLDER or NAME=hf-hub:OWNER/NAME; runs of other seeds go by the same NAME."""
    baseline: tuple[str, ...] = ()
    """NAME=KIND of constant, hand-displacement, motion-share, better-cluster and scripted, or NAME=KIND:ENCODER, such as
    clip=cosine:open_clip:ViT-B-16:openai or clips=roboclip:contrastive:FOLDER; also goal-image and vlm-rm.
    """
    settings: BaselineConfig = field(default_factory=BaselineConfig)
    """Constants of the baselines; encoder and goal are set here."""
    clips: Path = Path("data/clips")
    """Folder of frame banks, one a task."""
    tasks: tuple[str, ...] = ("paper:test",)
    """Tasks to measure on, which no model has learnt from."""
    others: tuple[str, ...] = ("paper:train",)
    """Tasks that other clips (IVP) and foreign instructions (ILP) come from."""
    episodes: Path | None = None
    """Folder of the episodes that the banks were drawn from; for scripted."""
    offline: Path | None = None
    """Folder of offline data, a dataset a task, whose segments are labelled; without it there are no measures of labels."""
    tuples: Count = 256
    """Orders a task and wording."""
    pairs: Count = 100
    """Pairs of segments a task."""
    seed: Seed = 0
    """Of the orders, segments and pairs, which are the same for all."""
    work: Path = Path("runs/compare")
    """Folder of features and of drawn segments, kept between calls."""
    summary: bool = False
    """Print means, deviations over seeds, and what the paper reports beside them."""
    threads: Workers = 2
    device: Device = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1."""
