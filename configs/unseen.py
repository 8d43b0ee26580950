"""Settings of `robopref unseen`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robopref.configs.baselines import ContrastiveConfig
from robopref.configs.collect import CollectConfig
from robopref.configs.ranges import Count, Seeds, Workers
from robopref.configs.vlp import PretrainConfig, TrainVLPConfig


@dataclass(frozen=True)
class UnseenConfig:
    """Every stage's settings; paths, seeds and task lists are filled in from the few keys at the top."""

    out: Path
    """Run folder."""
    split: Literal["paper", "ml45"]
    """Which tasks VLP learns from, and which it is measured on."""
    seeds: Seeds
    """A backbone and its VLPs a seed; the episodes are those of the first."""
    variants: dict[str, list[str]]
    """VLPs to train: name -> overrides of `vlp`."""
    only: tuple[str, ...]
    """Variants to train, by name; none: all."""
    processes: Workers
    """Worker processes wherever work can be shared."""
    tuples: Count
    """Orders a task and wording that are measured."""
    pairs: Count
    """Pairs of segments a test task that are labelled."""
    collect: CollectConfig
    offline: CollectConfig
    pretrain: PretrainConfig
    vlp: TrainVLPConfig
    contrastive: ContrastiveConfig
    """Settings of the small contrastive model behind the baselines called contrastive."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""
