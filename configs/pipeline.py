"""Settings of `robopref pipeline`, the main job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.collect import CollectConfig
from robopref.configs.policy import BCConfig, CPLConfig, IPLConfig, PIQLConfig
from robopref.configs.ranges import Count, Seed, Seeds, Word, Workers
from robopref.configs.vlp import PretrainConfig, TrainVLPConfig


@dataclass(frozen=True)
class PipelineConfig:
    """Every stage's settings; paths, seeds and task lists are filled in from the few keys at the top."""

    out: Path
    """Run folder."""
    task: Word
    """The task that VLP never sees: it is annotated, learnt, evaluated and filmed."""
    train_tasks: tuple[str, ...]
    """What VLP learns from: task names or SPLIT:PART; `task` is always left out."""
    instruction: str | None
    """What VLP is asked when it labels; null: the task's plain sentence."""
    seed: Seed
    policy_seeds: Seeds
    """Seeds of each policy, trained in one program."""
    processes: Workers
    """Worker processes wherever work can be shared."""
    goals: Count
    """Fixed goals of the evaluation."""
    max_steps: Count
    """Longest evaluation episode, in environment steps."""
    film_goals: Count
    """Goals that are filmed."""
    film_quality: Literal["fast", "pretty"]
    """`pretty`, or `fast`, a tenth of the time."""
    collect: CollectConfig
    offline: CollectConfig
    pretrain: PretrainConfig
    vlp: TrainVLPConfig
    annotate: AnnotateConfig
    bc: BCConfig
    piql: PIQLConfig
    cpl: CPLConfig
    ipl: IPLConfig
    """Not trained by the pipeline: settings of `python -m robopref.policies.study` and `.downstream`."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""
