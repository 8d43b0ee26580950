"""Settings of the commands that show a result: `robopref video`, `robopref attention` and `robopref report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from robopref.configs.ranges import Count, Device, FirstGoal, Inner, Natural, Pixels, Range, Seed, Word, Workers


@dataclass(frozen=True)
class VideoConfig:
    """Film policies: `OUT/POLICY-goal-G.mp4`, `OUT/POLICY.mp4` (its goals one after another) and `OUT/grid.mp4`."""

    policy: tuple[str, ...]
    """Policies: run folders (`robopref train`), folders of `robopref push` or hf-hub:OWNER/NAME[@REVISION]; or `expert` or
    `random`; one row of the grid each.
    """
    env: Word = "auto"
    """Environment: metaworld/TASK, dmc/TASK or mujoco/ENVIRONMENT; auto: the one that the policies were trained in."""
    out: Path = Path("videos")
    """Folder for the films and films.json, whose success_step counts actions up to and with the first success, as the films do
    (null: none); it is one more than in success.csv of `robopref evaluate`."""
    goals: Count = 4
    """How many goals to film; goal g is the start that environment seed FIRST_GOAL + g draws."""
    first_goal: FirstGoal = 0
    """Environment seed of the first goal."""
    member: Seed = 0
    """Which of the policies that were trained side by side in a run folder; of `random`, its seed."""
    model: Path | None = None
    """VLP run folder or hf-hub:OWNER/NAME[@REVISION]: shows its score of the episode so far.  Without it the score is the
    return so far.
    """
    instruction: str | None = None
    """What VLP is asked and the video shows; default: the task's plain sentence."""
    size: Pixels = 320
    """Height and width of a picture, in pixels."""
    camera: str = "corner2-zoom"
    """Camera name of embodied/render.py; in dmc and mujoco one of the model's, by default its first."""
    quality: Literal["fast", "pretty"] = "pretty"
    """`pretty` (shadows, smooth edges) or `fast`; dmc and mujoco are always drawn with shadows."""
    captions: bool = True
    """Write policy, goal, instruction, step, score and success on the pictures; leave it out (`--no-captions`) for films that
    `robopref annotate` is to judge.
    """
    every: Count = 4
    """Decisions between two pictures; 4 at 20 pictures a second is Meta-World's real time."""
    fps: Count = 20
    """Pictures a second."""
    max_steps: Count = 500
    """Longest episode, in decisions of the policy."""
    phases: tuple[Natural, ...] = ()
    """Of policies that were trained in a world that changes: film every goal in these phases of it, such as 4 5: before a switch
    and after it.
    """
    force: bool = False
    """Film in --env although the policies were trained in another environment."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""


@dataclass(frozen=True)
class AttentionConfig:
    """Show where a VLP looks: `OUT/NN-TASK-episode-E.png` or `OUT/NN-VIDEO.png` a clip, and `OUT/maps.csv`, their numbers."""

    model: Path
    """VLP run folder or hf-hub:OWNER/NAME[@REVISION]."""
    episodes: tuple[Path, ...] = ()
    """Episode datasets, one task each (`robopref collect`); a clip is a whole episode."""
    videos: tuple[str, ...] = ()
    """Or video files, patterns such as "runs/*.mp4" allowed."""
    out: Path = Path("attention")
    """Folder to write to."""
    method: Literal["occlusion", "attention"] = "occlusion"
    """occlusion: how far the score falls when a square of all frames is covered, with any model and backbone.  attention:
    weights from the words to the frames, which are no measure of importance; with one token a frame they have no places.
    """
    instruction: str | None = None
    """What VLP is asked; needed with --videos, and with --episodes the task's plain sentence by default."""
    clips: Count = 2
    """Episodes of each dataset, from its first on; videos are all shown."""
    level: str = "expert"
    """Which episodes: expert, medium, random, or whatever the dataset holds."""
    square: Inner = 0.2
    """Side of the square that is covered, as a share of the picture's."""
    grid: Annotated[int, Range(2)] = 16
    """Squares a side: GRID x GRID places are covered, one after another."""
    size: Pixels = 224
    """Height and width of a picture as it is shown; the model sees its own size, as small as 64."""
    quality: Literal["fast", "pretty"] = "pretty"
    """Of what is shown: `pretty` (shadows, smooth edges) or `fast`."""
    chunk: Count = 64
    """Covered clips scored at a time."""
    threads: Workers = 2
    """Processor threads of the encoder."""
    device: Device = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""


@dataclass(frozen=True)
class ReportConfig:
    """Write one self-contained HTML page about a run folder of `robopref pipeline`."""

    run: Path
    """Run folder, for example `runs/quick`."""
    out: Path | None = None
    """Where to write the page; default: `RUN/report.html`."""
