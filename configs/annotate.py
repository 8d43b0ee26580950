"""Settings of `robopref annotate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robopref.configs.baselines import BaselineConfig
from robopref.configs.chat import ChatConfig
from robopref.configs.ranges import Count, Device, NotNegative, PartShare, Positive, Seed, Workers


@dataclass(frozen=True)
class AnnotateConfig:
    """Label pairs of episode segments, or of videos, as P(b preferred) under an instruction."""

    out: Path = Path("labels.parquet")
    """Preferences file to write, NAME.parquet; its manifest and agreement go to the folder NAME.run beside it."""
    overwrite: bool = False
    """Replace what another `robopref annotate` wrote to --out."""
    episodes: Path | None = None
    """Episode dataset of one task (`robopref collect`) whose segments are compared."""
    videos: tuple[str, ...] = ()
    """Or video files, patterns such as "runs/*.mp4" allowed; each is compared as a whole.  All are read once before the first is
    scored, and one that is no whole video is an error.
    """
    skip_broken: bool = False
    """Leave such videos out instead, and the pairs of a pairs file that name one; each is named with its fault."""
    instruction: str | None = None
    """What the robot was asked to do, one sentence; with --episodes the task's plain sentence by default."""
    model: tuple[Path, ...] = ()
    """VLP for --labeller vlp: a run folder (`robopref train-vlp`), one of `robopref push`, or hf-hub:OWNER/NAME[@REVISION].
    Several are an ensemble: P(b preferred) is the mean of theirs.
    """
    labeller: Literal[
        "vlp",
        "scripted",
        "constant",
        "hand-displacement",
        "motion-share",
        "better-cluster",
        "human",
        "goal-image",
        "cosine",
        "vlm-rm",
        "roboclip",
        "rl-vlm-f",
    ] = "vlp"
    """vlp: pixels and instruction; scripted: the true return; constant: always a tie; hand-displacement, motion-share: how the
    hand moved; better-cluster: whichever cluster's segments have the higher true return in more pairs; human: the labels of
    --human-file; the others: baselines (docs/vlp.md).
    """
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    """For --labeller goal-image, cosine, vlm-rm and roboclip."""
    chat: ChatConfig = field(default_factory=ChatConfig)
    """For --labeller rl-vlm-f."""
    human_file: Path | None = None
    """CSV or Parquet with the columns of a pairs file and `label`, P(b preferred); default: the pairs file itself."""
    pairs: Count = 100
    """How many pairs; a pairs file brings its own number."""
    pairing: Literal["random", "clusters", "file"] = "random"
    """random: any two; clusters: one from each of two K-means clusters of episodes, as in the paper; file: listed."""
    pairs_file: Path | None = None
    """CSV or Parquet with episode_a, start_a, stop_a, episode_b, ..., or with video_a, video_b."""
    clips: Count | None = None
    """Distinct segments that the pairs are made of, if there are so many; by default two a pair."""
    segment_length: Count = 50
    """Environment steps a segment (VLP's paper: 50)."""
    frames: Count = 8
    """Frames a clip; as many as VLP was trained on."""
    temperature: Positive = 1.0
    """Labels are sigmoid((score_b - score_a) / temperature); above 1 they are softer than the scorer says."""
    hard: bool = False
    """Write 0, 0.5 or 1 instead of probabilities."""
    tie_margin: NotNegative = 0.0
    """With --hard: scores no further apart than this are a tie.  Of an ensemble: the log-odds of its probability, times the
    temperature.
    """
    abstain: PartShare = 0.0
    """Share of the pairs that get no label: they are marked as abstained, and no policy learns from them."""
    abstain_by: Literal["disagreement", "confidence"] = "disagreement"
    """Which pairs those are: where the models of an ensemble disagree most, or where the probability is closest to 0.5."""
    seed: Seed = 0
    """Seed of segments, pairs, their order and K-means."""
    chunk: Count = 32
    """Clips drawn, encoded and kept at a time; a killed run loses at most this many."""
    threads: Workers = 2
    """Processor threads of the encoder."""
    processes: Workers = 2
    """Worker processes that draw, where there is more than one chunk; 1: this process draws, too."""
    device: Device = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1."""
