"""Settings of reward code that a language model, or anybody, wrote (PROF), and of the command that ranks it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robopref.configs.chat import ChatConfig
from robopref.configs.ranges import Count, Natural, NotNegative, Positive, Seed, Word, Workers


@dataclass(frozen=True)
class SandboxConfig:
    """What code that a language model wrote may use."""

    seconds: Positive = 20.0
    """Of processor time and, beyond its start, of waiting."""
    memory_mb: Count = 1024
    """Beyond what Python and numpy have."""
    bubblewrap: bool = True
    """Use bubblewrap where it is installed."""
    strict: bool | None = None
    """Run nothing unless every layer of the sandbox holds; null: where bubblewrap starts."""


@dataclass(frozen=True)
class RankingConfig:
    """Reward preference ranking: how expert segments are made worse, and what counts as told apart.

    delta, alpha_o, alpha_a and H are the paper's names; their values, and all else here, are ours.
    """

    horizon: Natural = 50
    """H: steps a segment; 0: whole episodes."""
    delta: NotNegative = 0.1
    """A pair counts as won when the expert is better by more than this, in pooled standard deviations of the reward."""
    alpha_o: NotNegative = 0.1
    """Noise on observations, in their standard deviations."""
    alpha_a: NotNegative = 0.1
    """Noise on actions, likewise."""
    levels: tuple[Positive, ...] = (1.0, 2.0, 4.0, 8.0)
    """Noise levels: multiples of alpha_o and alpha_a, from little to much."""
    draws: Count = 4
    """Noisy copies a level."""
    noise: Literal["white", "smooth"] = "white"
    """white: every step its own; smooth: it moves slowly (ours), so that a reward cannot tell it by its roughness."""
    spread: Literal["data", "expert"] = "data"
    """Whose standard deviations the noise is scaled by."""
    pairs: Literal["noise", "data", "both"] = "noise"
    """What an expert's segment is compared with: its noisy copies, random segments of the data (ours), or both, half each."""
    dominance: Literal["share", "copeland"] = "share"
    """share: of pairs won (A); copeland: candidates beaten pair by pair less those that beat it (B)."""
    segments: Count = 64
    """How many random segments of the data."""


@dataclass(frozen=True)
class WriterConfig:
    """Who writes reward code."""

    kind: Literal["grammar", "openai", "manual", "replay"] = "grammar"
    """grammar: a seeded search over terms, no language model; openai: any server that speaks its protocol; manual: prompts go to
    files, answers come from files; replay: a transcript.
    """
    chat: ChatConfig = field(default_factory=lambda: ChatConfig(temperature=1.0, stream=True))
    """openai: which model, and where."""
    transcript: Path | None = None
    """replay: transcript.jsonl of an earlier run."""
    calls: Count = 200
    """Most questions in a run."""
    tokens: Count = 2_000_000
    """Most tokens, questions and answers together."""
    dollars: NotNegative = 0.0
    """Most money; 0: no limit.  It needs the prices."""
    price_in: NotNegative = 0.0
    """Dollars for a million tokens of questions."""
    price_out: NotNegative = 0.0
    """And of answers."""


@dataclass(frozen=True)
class PROFConfig:
    """`robopref prof`: reward code is written, ranked against one expert trajectory, improved, and written to a file."""

    out: Path
    env: Word
    """As in fields.yaml: mujoco/hopper."""
    data: str
    """D4RL file, Minari folder or D4RL name: what is to be labelled."""
    expert_data: str | None = None
    """Likewise, where the expert's trajectories are; null: the best of `data`."""
    experts: Count = 1
    """How many of them."""
    fields: Path | None = None
    """YAML that says what the numbers of `env` mean, where robopref does not know it."""
    candidates: Natural = 16
    """K: rewards that are written at first."""
    rounds: Natural = 1
    """T: how often the best is criticised and rewritten."""
    children: Natural = 4
    """Rewrites a round; the best of them and their parent goes on."""
    repairs: Natural = 1
    """How often code that does not run is handed back (ours)."""
    files: tuple[Path, ...] = ()
    """Rewards to rank beside them, FILE.py: edited ones, or another run's."""
    writer: WriterConfig = WriterConfig()
    ranking: RankingConfig = RankingConfig()
    sandbox: SandboxConfig = SandboxConfig()
    seed: Seed = 0
    processes: Workers = 2
    """Candidates that are run at the same time."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""
