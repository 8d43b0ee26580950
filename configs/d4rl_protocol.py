"""Settings of `robopref collect protocol=d4rl`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robopref.configs.policy import CIRConfig
from robopref.configs.ranges import Count, Device, Natural, Seed, Word, Workers

SETS = ("random", "medium", "medium-replay", "medium-expert", "expert")
"""Names of the sets: OUT/NAME.hdf5."""


@dataclass(frozen=True)
class D4RLProtocolConfig:
    """Train an agent; write what it and its earlier selves do, by D4RL's recipe."""

    out: Path
    """Folder to write: NAME.hdf5 and minari/NAME of every set, training/, levels/, summary.csv."""
    env: Word
    """mujoco/ENVIRONMENT, dmc/TASK, metaworld/TASK or adroit/TASK."""
    policy: CIRConfig
    protocol: Literal["d4rl"] = "d4rl"
    seed: Seed = 0
    frames: Count = 200_000
    """Steps that the agent learns for."""
    warmup: Natural = 1000
    """Steps at random before anything is learnt."""
    steps: Count = 100_000
    """Steps of each of random, medium and expert, whose last episode is played to its end; D4RL: a million."""
    eval_every: Count = 2500
    """Steps of learning between two snapshots of the policy, each of which is evaluated."""
    eval_episodes: Count = 10
    reference_episodes: Count = 100
    """Of the random policy and of the expert, whose mean returns are 0 and 1 of our own scale."""
    checkpoint_every: Count = 10_000
    """Steps of learning between two checkpoints."""
    processes: Workers = 1
    """That play episodes once the agent has learnt."""
    threads: Workers = 1
    """Processor threads of each."""
    device: Device = "auto"
    """Where the agent learns; episodes are played on the processor."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""
