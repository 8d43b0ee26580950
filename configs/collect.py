"""Settings of `robopref collect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robopref.configs.ranges import Count, Names, Natural, NotNegative, Pixels, Seed, SomeTasks, Workers


@dataclass(frozen=True)
class CollectConfig:
    """Roll out the scripted policies of some tasks and keep every simulator state."""

    out: Path = Path("data/episodes")
    """Folder to write to; one Minari dataset a task, `OUT/TASK`."""
    overwrite: bool = False
    """Replace datasets of these tasks that were collected with other settings, and frame banks of other episodes."""
    clips: Path | None = None
    """Folder for the drawn frames (one frame bank a task, `CLIPS/TASK`); nothing is drawn without it."""
    frame_size: Pixels = 64
    """Height and width of the frames, in pixels."""
    camera: str = "corner2-zoom"
    """Camera name of embodied/render.py."""
    parts: bool = False
    """Also draw which part of the scene each pixel of an episode's first and last frame shows, for pretrain's scene=true."""
    tasks: SomeTasks = ("drawer-close",)
    """Task names, or a part of a split: `paper:train`, `paper:test`, `ml45:train`, `ml45:test`."""
    levels: Names = ("expert", "medium", "random")
    """Any of expert, medium, random (VLP's levels), mismatched, foreign (the offline data of the CPL paper), wandering (ours)."""
    episodes: Count = 32
    """Episodes a task and level; VLP's paper has 32."""
    noise: NotNegative = 0.1
    """Standard deviation of the Gaussian noise on the scripted actions."""
    max_steps: Count = 500
    """Longest episode, in environment steps."""
    linger: Natural = 25
    """Steps kept after the first success."""
    seed: Seed = 0
    processes: Workers = 2
    """Worker processes; tasks are shared among them."""
