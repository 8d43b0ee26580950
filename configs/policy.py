"""Settings of `robopref train` and `robopref evaluate`.

Defaults are those of the CPL repository's Meta-World runs where it has one, of IPL's for IPL, marked "ours" where neither has;
they are made for a GPU and hours.  The quick scale of the pipeline shortens all schedules in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from robopref.configs.errors import UsageError
from robopref.configs.imitation import OTRConfig, SEABOConfig, UDSConfig
from robopref.configs.ranges import (
    Count,
    Device,
    FirstGoal,
    Inner,
    Natural,
    NotNegative,
    Number,
    PartShare,
    Positive,
    Range,
    Seed,
    Seeds,
    Share,
    SomeShare,
    Widths,
    Word,
    Workers,
)


@dataclass(frozen=True)
class BCConfig:
    """Behaviour cloning of every transition: the reference that uses no label."""

    name: str = "bc"
    steps: Count = 200_000
    """Gradient steps; as many as CPL clones."""
    batch: Count = 256
    """Transitions a step and member (ours)."""
    learning_rate: Positive = 1e-4
    hidden: Widths = (512, 512)
    actor: str = "deterministic"
    """deterministic (log pi = -||pi(s) - a||^2) or gaussian."""
    dropout: PartShare = 0.25
    """Of the actor's hidden layers."""
    normalise: bool = True
    """Train on observations of mean 0 and standard deviation 1 (ours); the policy takes raw ones."""


@dataclass(frozen=True)
class IQLConfig:
    """Implicit Q-learning from the rewards in the episodes."""

    name: str = "iql"
    steps: Count = 500_000
    batch: Count = 256
    learning_rate: Positive = 3e-4
    hidden: Widths = (512, 512)
    actor: str = "deterministic"
    dropout: PartShare = 0.25
    normalise: bool = True
    expectile: Inner = 0.7
    """Of the value regression; 0.5 is the mean, 1 the maximum over the data's actions."""
    temperature: Positive = 0.3333
    """1/beta: the actor weighs an action by exp(advantage / temperature)."""
    clip: Positive = 100.0
    """Largest such weight."""
    discount: Share = 0.99
    polyak: SomeShare = 0.005
    """Step of the target critics towards the critics."""
    reward_std: NotNegative = 1.0
    """Rewards are shifted to mean 0 and scaled to this deviation (ours); 0: as they are."""
    actor_cosine: bool = True
    """Let the actor's learning rate fall to 0 along a cosine."""
    precision: str = "float32"
    """float32; mixed: hidden layers multiply bfloat16 numbers (ours); auto: mixed where the machine has instructions for that."""


@dataclass(frozen=True)
class TD3BCConfig:
    """TD3+BC (Fujimoto & Gu 2021), the paper's values."""

    name: str = "td3bc"
    steps: Count = 1_000_000
    """Of the critics."""
    batch: Count = 256
    learning_rate: Positive = 3e-4
    hidden: Widths = (256, 256)
    actor: str = "deterministic"
    """The only kind: the critics' gradient goes through its mean."""
    dropout: PartShare = 0.0
    """Of the actor's hidden layers (ours)."""
    normalise: bool = True
    alpha: NotNegative = 2.5
    """Weight of Q, whose mean absolute value is made 1, against the distance to the data's actions."""
    discount: Share = 0.99
    polyak: SomeShare = 0.005
    """Step of the targets towards actor and critics."""
    noise: NotNegative = 0.2
    """Deviation of what is added to the target actor's actions."""
    noise_clip: NotNegative = 0.5
    """And its largest size."""
    delay: Count = 2
    """Steps of the critics for each of the actor and the targets."""


@dataclass(frozen=True)
class PIQLConfig(IQLConfig):
    """P-IQL: a Bradley-Terry reward from labelled pairs, then IQL from it."""

    name: str = "piql"
    steps: Count = 450_000
    """IQL steps after the reward is learned."""
    reward_steps: Count = 50_000
    reward_learning_rate: Positive = 3e-4
    pairs: Count = 96
    """Pairs a step and member."""
    segment_steps: Natural = 0
    """Steps used of each segment, spread evenly; 0: all of them."""


@dataclass(frozen=True)
class IPLConfig:
    """Inverse preference learning: labelled pairs teach Q, and the reward is what Q implies."""

    name: str = "ipl"
    steps: Count = 200_000
    pairs: Count = 16
    """Pairs a step and member."""
    segment_steps: Natural = 16
    """Steps used of each segment, spread evenly (ours; IPL takes a window of 16 of 25); 0: all of them."""
    batch: Count = 256
    """Transitions of the whole dataset a step and member, beside those of the pairs."""
    data_share: Share = 0.5
    """Weight of these in V, the actor and the penalty; the pairs' steps have the rest."""
    penalty: NotNegative = 3.0
    """Weight of the mean squared reward, Q - discount V' squared."""
    learning_rate: Positive = 3e-4
    hidden: Widths = (256, 256, 256)
    actor: str = "gaussian"
    dropout: PartShare = 0.0
    normalise: bool = True
    expectile: Inner = 0.75
    temperature: Positive = 0.3333
    clip: Positive = 100.0
    discount: Share = 0.99
    polyak: SomeShare = 0.005
    actor_cosine: bool = False


@dataclass(frozen=True)
class CPLConfig:
    """Contrastive preference learning, with a reference policy CPL-KL, with bias 1 besides trajectory DPO."""

    name: str = "cpl"
    clone_steps: Natural = 200_000
    """Behaviour cloning before preferences."""
    clone_from: str = "segments"
    """segments: what the labelled pairs show (CPL repository); transitions: the whole dataset (ours)."""
    clone_learning_rate: Positive = 1e-4
    batch: Count = 256
    """Transitions a cloning step and member (ours)."""
    steps: Count = 300_000
    """Preference steps after cloning."""
    pairs: Count = 96
    segment_steps: Natural = 0
    learning_rate: Positive = 1e-4
    warmup: Share = 0.02
    """Share of the preference steps over which the fresh optimiser's learning rate rises (ours)."""
    hidden: Widths = (512, 512)
    actor: str = "deterministic"
    dropout: PartShare = 0.25
    normalise: bool = True
    alpha: Positive = 0.1
    """Scale of the segment score; 0.2 for CPL-KL."""
    bias: SomeShare = 0.5
    """lambda in (0, 1]: the loser's score counts this much; 0.75 for CPL-KL, 1 for DPO."""
    reference: bool = False
    """Score by log pi - log pi_cloned (CPL-KL) instead of log pi."""
    clone_weight: NotNegative = 0.0
    """Weight of the cloning loss on the pairs' segments during the preference steps."""


@dataclass(frozen=True)
class CIRConfig:
    """CIR, an off-policy agent that acts in an environment while it learns; with every part off, soft actor-critic."""

    name: str = "cir"
    width: Count = 512
    """Of every hidden layer of actor and critics."""
    critic: str = "constrained"
    """constrained: CIR's seven layers; mlp: two ReLU layers, as in soft actor-critic."""
    norm: str = "shared"
    """LayerNorm of the constrained critics: one and the same everywhere (shared), one a layer and critic (own), or none."""
    kappa: NotNegative = 0.1
    """Mean absolute value that the first representation is scaled to before it is squashed; 0: not scaled."""
    tanh: bool = True
    """Squash the first representation."""
    skip: bool = True
    """The U-shaped skip connections."""
    low_share: Share = 0.3
    """lambda: weight of the smaller critic in the target, beside the larger one's; 1: the minimum."""
    actor_q: str = "mean"
    """What the actor climbs: the mean of the critics, or min."""
    repeats: Count = 2
    """Updates a decision."""
    fresh: bool = False
    """Draw a new minibatch for each of them, instead of using one several times (sample multiple reuse)."""
    batch: Count = 256
    learning_rate: Positive = 3e-4
    discount: Share = 0.99
    polyak: SomeShare = 0.005
    """Step of the target critics towards the critics."""
    standardise: bool = False
    """Show actor and critics observations less the mean of those met so far, over their deviation (SimBa: arXiv 2410.09754)."""
    initial_temperature: Positive = 1.0
    target_entropy: Number = -1.0
    """Of the policy, for each number of an action; SimBa: -0.5."""
    alpha_loss: str = "alpha"
    """What the temperature climbs down: alpha (entropy - target) (Haarnoja et al. 2018), or log_alpha: log alpha in its place."""
    precision: str = "float32"
    """Of hidden layers (ours): float32; mixed: their matrix products take bfloat16 numbers and add in float32; bfloat16: all but
    the weights that are learnt.  First layers and values are float32 in any case."""
    cuda_graph: bool = True
    """On a GPU: an update as one CUDA graph."""


@dataclass(frozen=True)
class GTRConfig:
    """GTR (reconstruction from the abstract): PPO with a trust region that lets go; its switches make PPO and its relatives."""

    name: str = "gtr"
    hidden: Widths = (64, 64)
    activation: str = "tanh"
    actor: str = "gaussian"
    bins: Annotated[int, Range(2)] = 11
    log_std: Number = 0.0
    envs: Count = 8
    steps: Count = 256
    epochs: Count = 10
    minibatch: Count = 64
    learning_rate: Positive = 3e-4
    discount: Share = 0.99
    gae_lambda: Share = 0.95
    clip: Positive = 1.0
    value_weight: NotNegative = 0.5
    entropy: NotNegative = 0.0
    normalise: bool = True
    max_norm: Positive = 0.5
    penalty: str = "gaussian"
    beta: NotNegative = 1.0
    sigma: Positive = 0.5
    adapt: NotNegative = 0.0
    lenience: NotNegative = 0.0
    distance: str = "kl"
    anchor: str = "mixture"
    anchors: Count = 5
    anchor_decay: Share = 0.7
    anchor_every: Count = 1


@dataclass(frozen=True)
class SwitchConfig:
    """A world that changes while a run goes on."""

    kind: str = "none"
    every: Count = 200_000
    """Frames of a member between two switches."""
    seed: Seed = 0
    low: Positive = 0.02
    high: Positive = 2.0
    tasks: tuple[str, ...] = ()
    spread: NotNegative = 0.5


@dataclass(frozen=True)
class FeedbackConfig:
    """A reward that is learnt while acting, from answers about what was met (reward=vlp, reward=bradley_terry); PEBBLE's loop."""

    model: tuple[Path, ...] = ()
    """VLPs to ask, folders of `robopref train-vlp`; several are an ensemble."""
    instruction: str | None = None
    """What the robot should do; without one the task's own sentence."""
    segment_steps: Count = 50
    """Decisions a segment."""
    every: Count = 2500
    """Decisions between two sessions of questions; the first is after the warm-up."""
    questions: Count = 400
    """Pairs of segments a session."""
    abstain: PartShare = 0.875
    """Share of a session's answers, those of which the VLPs are least sure, that is not learnt from."""
    hard: bool = True
    """Learn from 1 and 0 instead of the VLPs' probabilities."""
    tie_margin: NotNegative = 0.0
    """With hard: log-odds up to this are learnt from as ties (ours), so that a VLP that is indifferent is taken at its word."""
    most: Count = 2000
    """Answers that are learnt from in all."""
    candidates: Natural = 2
    """Pairs that are looked at for each that is asked: those on which the reward's members disagree most."""
    members: Count = 3
    """Bradley-Terry networks."""
    hidden: Widths = (256, 256)
    sharpness: Positive = 10.0
    """P(a > b) is sigmoid of this times the difference of mean rewards, each in (-1, 1) (ours); PEBBLE: segment_steps."""
    learning_rate: Positive = 3e-4
    steps: Count = 200
    """Gradient steps a session."""
    batch: Count = 32
    """Pairs a gradient step."""
    frames: Count = 8
    """Frames that the VLPs read of a segment."""


@dataclass(frozen=True)
class OnlineConfig:
    """An agent that learns while it acts."""

    out: Path
    """Run folder to write."""
    env: Word
    """dmc/TASK, mujoco/ENVIRONMENT or metaworld/TASK."""
    policy: CIRConfig
    reward: str = "true"
    """true: the environment's; vlp, bradley_terry: learnt while acting; a learned one, RUN/reward of P-IQL or hf-hub:OWNER/NAME;
    or code, FILE.py.
    """
    reward_member: Natural = 0
    """Which seed of a learned reward."""
    feedback: FeedbackConfig = FeedbackConfig()
    seed: Seed = 0
    frames: Count = 500_000
    """Simulator steps that the agent acts for; a decision is action_repeat of them."""
    action_repeat: Count = 2
    warmup: Natural = 2500
    """Decisions at random before anything is learnt."""
    hold: Annotated[float, Range(1)] = 1.0
    """How many of them one random action is held for, on average (ours); above 1 half of its numbers are -1 or 1."""
    capacity: Count = 1_000_000
    """Transitions that are remembered."""
    eval_every: Count = 5000
    """Frames between two evaluations."""
    eval_episodes: Count = 10
    checkpoint_every: Count = 10_000
    """Decisions between two checkpoints."""
    device: Device = "auto"
    threads: Workers = 1
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""


@dataclass(frozen=True)
class OnPolicyConfig:
    """Agents that learn from what their present policy meets, one a seed, all in one program."""

    out: Path
    env: Word
    policy: GTRConfig
    switch: SwitchConfig = SwitchConfig()
    reward: str = "true"
    reward_member: Natural = 0
    feedback: FeedbackConfig = FeedbackConfig()
    seeds: Seeds = (0, 1, 2, 3, 4)
    frames: Count = 1_000_000
    action_repeat: Count = 1
    warmup: Natural = 5000
    checkpoint_every: Count = 20
    processes: Workers = 1
    threads: Workers = 1
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""


PolicyConfig = BCConfig | IQLConfig | TD3BCConfig | PIQLConfig | IPLConfig | CPLConfig
POLICIES: dict[str, type[PolicyConfig]] = {
    "bc": BCConfig,
    "iql": IQLConfig,
    "td3bc": TD3BCConfig,
    "piql": PIQLConfig,
    "ipl": IPLConfig,
    "cpl": CPLConfig,
}


@dataclass(frozen=True)
class TrainConfig:
    """One policy run: the same algorithm on the same data once a seed, all members in one program."""

    out: Path
    """Run folder to write."""
    data: Path
    """Episode dataset of one task; for bc, iql and td3bc also a D4RL file, a Minari folder or a D4RL name."""
    policy: PolicyConfig
    labels: Path | None = None
    """Preferences file; needed by piql, ipl and cpl."""
    seeds: Seeds = (0, 1, 2, 3, 4)
    """One member each."""
    log_every: Count = 100
    """Steps between two rows of metrics.csv."""
    checkpoint_every: Count = 1000
    """Steps between two checkpoints; an interrupted run goes on from the last."""
    device: Device = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1."""
    threads: Workers = 1
    """Processor threads; small networks gain nothing from more."""
    reward: str = "true"
    """What iql and td3bc learn from: true, the data's own; seabo, otr or uds, from expert episodes; a learned reward, the folder
    RUN/reward of policy=piql or hf-hub:OWNER/NAME (the mean of its members); or code, FILE.py.
    """
    reward_scale: Literal["auto", "none", "return_range", "antmaze", "otr_antmaze"] = "auto"
    """What becomes of these rewards (preference/imitation/scaling.py); auto: what their authors' code does for this data and
    this learner (policies/offline.py), nothing with policy.reward_std.
    """
    survival: NotNegative = 0.0
    """Bonus for every step survived, in standard deviations of the reward over the data, where episodes can end for good (ours).

    For reward code, learned rewards, seabo, otr and uds; for environments where an end is a failure, and not where it is success,
    as in AntMaze.
    """
    experts: Count = 1
    """Expert episodes: those of highest return in `expert_data`, or in the data themselves."""
    expert_data: Path | None = None
    """Where the experts are from, a file, folder or name as `data`; they are added to the data unless they are in it."""
    top: SomeShare = 1.0
    """Share of the episodes, those of highest return, that bc learns from: 0.1 is 10 % BC."""
    seabo: SEABOConfig = field(default_factory=SEABOConfig)
    otr: OTRConfig = field(default_factory=OTRConfig)
    uds: UDSConfig = field(default_factory=UDSConfig)
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Success of policies over fixed goals in metaworld/...; elsewhere their return, over whole episodes."""

    policy: tuple[str, ...]
    """Policies: run folders (`robopref train`), folders of `robopref push` or hf-hub:OWNER/NAME[@REVISION]; or the references
    `random` and `expert`.
    """
    out: Path
    """Folder for success.csv and summary.json.  success_step in the first is the number, from 0, of the step that first succeeded
    (-1: none did); films.json of `robopref video` counts from 1."""
    env: Word = "auto"
    """Environment: metaworld/TASK, dmc/TASK, mujoco/..., adroit/...; auto: the one that the policies were trained in."""
    goals: Count = 20
    """Starts and goals to try, the same for every policy and member."""
    first_goal: FirstGoal = 0
    """Environment seed of the first goal."""
    max_steps: Count = 1000
    """Longest episode, in decisions.  Meta-World's and dmc's end after 500 of themselves."""
    protocol: Literal["auto", "success", "return"] = "auto"
    """success: an episode ends at its first success; return: it goes on to its own end, and success is noted; auto: success in
    metaworld/..., return elsewhere, where there is no success or D4RL's reference returns are of whole episodes."""
    references: Count = 3
    """Members of the random reference (its seeds)."""
    processes: Workers = 1
    """Worker processes; members are shared among them."""
    force: bool = False
    """Evaluate in --env although the policies were trained in another environment; they must see and do as many numbers in it."""
    overwrite: bool = False
    """Begin anew, and delete what another run has left in the folder."""


ONLINE = ("cir", "sac")
"""Policies that act in an environment and learn from all that was met."""
ON_POLICY = ("gtr", "ppo", "ppo_kl", "c_chain")
"""That act too, and learn from what the present policy meets; all others learn from episodes."""


def preset(policy: Mapping[str, Any]) -> str:
    """The name by which `policy=` gives these settings; presets of an algorithm, such as `sac` of CIR, have their own."""
    name = str(policy["name"])
    if name == "cpl" and policy["reference"]:
        return "dpo" if policy["bias"] == 1 else "cpl_kl"
    if name == "cir" and (policy["critic"], policy["actor_q"], policy["low_share"]) == ("mlp", "min", 1):
        return "sac"
    if name == "gtr":
        return {"none": "ppo", "kl": "ppo_kl", "mean": "c_chain"}.get(policy["penalty"], name)
    return name


def trained(policy: PolicyConfig | CIRConfig | GTRConfig, seeds: Sequence[int]) -> str:
    """Name the policy and its seeds, for the last line of a training."""
    return f"{preset(vars(policy))}, seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def kind_of(argv: Sequence[str]) -> str:
    """Which settings the command is about, by its policy, a sweep of policies, or an experiment."""
    policies = {name for word in argv if word.startswith("policy=") for name in word.removeprefix("policy=").split(",")}
    kinds = {"train_online": ONLINE, "train_onpolicy": ON_POLICY}
    for kind, names in kinds.items():
        if policies & set(names) and not policies <= set(names):
            raise UsageError(f"{', '.join(sorted(policies))}: these learn in different ways; sweep over {', '.join(names)} alone")
        if policies & set(names) or any(word.startswith(f"experiment={name}") for word in argv for name in names):
            return kind
    return "train"
