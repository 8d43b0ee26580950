"""Settings of the commands that show a result: `robopref video` and `robopref report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class VideoConfig:
    """Film policies: `OUT/POLICY-goal-G.mp4`, `OUT/POLICY.mp4` (its goals one after another) and `OUT/grid.mp4`."""

    policy: tuple[str, ...]
    """Policy run folders (`robopref train`), or `expert` or `random`; one row of the grid each."""
    env: str = "metaworld/drawer-close"
    """Environment, `metaworld/TASK`."""
    out: Path = Path("videos")
    """Folder to write to."""
    goals: int = 4
    """How many goals to film; goal g is the start that environment seed FIRST_GOAL + g draws."""
    first_goal: int = 0
    """Environment seed of the first goal."""
    member: int = 0
    """Which of the policies that were trained side by side in a run folder; of `random`, its seed."""
    model: Path | None = None
    """VLP run folder or hf-hub:OWNER/NAME[@REVISION]: shows its score of the episode so far.  Without it the score is the
    return so far.
    """
    instruction: str | None = None
    """What VLP is asked and the video shows; default: the task's plain sentence."""
    size: int = 320
    """Height and width of a picture, in pixels."""
    camera: str = "corner2-zoom"
    """Camera name of embodied/render.py."""
    quality: Literal["fast", "pretty"] = "pretty"
    """`pretty` (shadows, smooth edges) or `fast`."""
    every: int = 4
    """Environment steps between two pictures; 4 at 20 pictures a second is Meta-World's real time."""
    fps: int = 20
    """Pictures a second."""
    max_steps: int = 500
    """Longest episode, in environment steps."""


@dataclass(frozen=True)
class ReportConfig:
    """Write one self-contained HTML page about a run folder of `robopref pipeline`."""

    run: Path
    """Run folder, for example `runs/quick`."""
    out: Path | None = None
    """Where to write the page; default: `RUN/report.html`."""
