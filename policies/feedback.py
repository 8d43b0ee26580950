"""A reward that is learnt while the agent acts, from a teacher who is asked about what the agent has met.

PEBBLE's loop (Lee et al. 2021): from time to time pairs of segments are chosen on which the members of the reward disagree most,
a teacher says which is better, the reward learns from all answers so far, and everything that is remembered gets its new reward.
With reward=vlp the teacher is a VLP that sees pixels and an instruction; segments are drawn from the simulator states of their
steps, so nothing is filmed that is not asked about.  With reward=bradley_terry it is PEBBLE's scripted teacher, who knows
the true return: the control for the VLP, and for any world.  PEBBLE's curious exploration before the first question is left out:
that is random.

Axes: N candidate pairs, Q questions, K steps a segment, M members of the reward, do and da numbers in an observation and an
action, S numbers in the moving part of a simulator state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import atomic_file
from robopref.configs.policy import FeedbackConfig
from robopref.datasets.clips import frame_steps
from robopref.embodied import simstate
from robopref.embodied.control import ControlEnv
from robopref.embodied.envs import make_env
from robopref.embodied.render import Renderer
from robopref.embodied.tasks import canonical
from robopref.policies.experience import ExperienceMemory, check_digest, check_witnesses, created, digest_rows, opened
from robopref.preference.annotate import check_instruction
from robopref.preference.ensemble import Ensemble, by_view, load_members
from robopref.preference.hub import WEIGHTS, find_model
from robopref.preference.labellers import labels_from_scores, least_sure, log_odds
from robopref.preference.members import adam, descend, member_rngs
from robopref.preference.reward import BradleyTerryReward, preference_loss

STATES = "states.npy"
TEACHERS = ("vlp", "bradley_terry")  # what `reward=` may be for a reward that is learnt while acting


class BoundedReward(nn.Module):
    """M Bradley-Terry networks on standardised observations, their reward squashed into (-1, 1) as in PEBBLE.

    PEBBLE adds a segment's rewards up, so that P(a > b) = sigmoid(sum r_a - sum r_b) is certain of what differs by .1 a step, and
    a few wrong answers drive the rewards of everything to -1 or 1, where they learn no more.  Here it is sigmoid of `sharpness`
    times the difference of mean rewards (ours; PEBBLE's is K).
    """

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        sharpness: float,
    ) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.net = BradleyTerryReward(rngs, obs_dim, action_dim, hidden)
        self.mean, self.std = nn.Buffer(torch.zeros(obs_dim)), nn.Buffer(torch.ones(obs_dim))

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """r (M, B) for raw observations (M, B, do) and actions (M, B, da)."""
        return torch.tanh(self.net((obs - self.mean) / self.std, actions))

    def scores(self, obs: Tensor, actions: Tensor) -> Tensor:
        """What a segment has in the exponent, (M, B), for obs (M, B, K, do) and actions (M, B, K, da)."""
        return self(obs.flatten(1, 2), actions.flatten(1, 2)).view(obs.shape[:3]).mean(-1) * self.sharpness


class Feedback:
    """Questions, answers and the reward that they teach, for one run in one environment; itself a RewardFunction."""

    def __init__(
        self, teacher: str, config: FeedbackConfig, memory: ExperienceMemory, env: ControlEnv, folder: Path, seed: int
    ) -> None:
        """teacher: one of TEACHERS; folder: where the states of what is remembered lie, beside the experience."""
        self.config, self.memory, self.env_id, self.seed = config, memory, env.env_id, seed
        self.scripted = teacher != "vlp"
        self.teachers: list[Ensemble] = []
        if not self.scripted:
            self.instruction = check_instruction(config.instruction or canonical(env.env_id.split("/")[1]))
            self.teachers = by_view(load_members([find_model(model, "vlp") for model in config.model], config.frames))
        obs_dim, action_dim = env.sizes
        (self.rng,) = member_rngs([seed], "feedback")
        self.answers = {
            "obs": np.zeros((0, 2, config.segment_steps, obs_dim), np.float32),
            "actions": np.zeros((0, 2, config.segment_steps, action_dim), np.float32),
            "labels": np.zeros(0, np.float32),
        }
        """Of every answer so far, P(second preferred) as the label."""
        self.reward, self.optimizer = self.begin_anew()
        self.episodes: dict[str, list[Any]] = {"first": [], "static": [], "opening": []}
        """Of every episode so far: number of its first transition, fixed part and first moving part of its states."""
        shape = len(memory.rows), 1 if self.scripted else 1 + simstate.layout(env).dynamic_size
        self.path = folder / STATES
        if self.path.exists():
            self.states = opened(self.path, memory.used)
        else:
            with atomic_file(self.path) as temp:
                self.states = created(self.path, temp, np.float64, shape, memory.used)
        """The true reward, which a VLP is only compared with, and for a VLP the state before a transition, (C, 1 + S)."""
        if self.states.shape != shape:
            raise RoboprefError(f"{self.path} is damaged or of another run: delete {folder} and start again")

    def __call__(self, obs: np.ndarray, actions: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
        """The members' mean reward (N,)."""
        members = self.config.members
        with torch.no_grad():
            x, a = (torch.as_tensor(part, dtype=torch.float32).expand(members, -1, -1) for part in (obs, actions))
            return self.reward(x, a).mean(0).numpy()

    def opening(self, env: ControlEnv) -> tuple[np.ndarray, np.ndarray]:
        """What `begin` needs to know of an episode that has just begun; nothing for a scripted teacher."""
        if self.scripted:
            return np.zeros(0), np.zeros(0)
        return simstate.save_static(env), simstate.save_dynamic(env)

    def state(self, env: ControlEnv) -> np.ndarray:
        """What `add` needs to know of a state (S,), likewise."""
        return np.zeros(0) if self.scripted else simstate.save_dynamic(env)

    def begin(self, static: np.ndarray, opening: np.ndarray) -> None:
        """An episode, or another part of one, begins with the next transition; its states' fixed and first moving part."""
        self.episodes["first"].append(self.memory.added)
        self.episodes["static"].append(static)
        self.episodes["opening"].append(opening)

    def add(self, state: np.ndarray, true_reward: float) -> None:
        """The state before the transition that is added next, and the true reward of that."""
        self.states[self.memory.added % len(self.states)] = np.append(true_reward, state)

    def due(self, decided: int, warmup: int) -> bool:
        """Whether it is time to ask."""
        return decided >= warmup and (decided - warmup) % self.config.every == 0 and len(self) < self.config.most

    def __len__(self) -> int:
        """Answers so far."""
        return len(self.answers["labels"])

    def ask(self) -> dict[str, float]:
        """One session: choose, ask, learn, relabel; how it went."""
        config = self.config
        starts = self.starts()
        if len(starts) < 2:
            raise RoboprefError(
                f"feedback.segment_steps={config.segment_steps}: no two such segments in {self.memory.added} decisions; "
                "raise warmup or take shorter segments"
            )
        questions = min(config.questions, config.most - len(self))
        pairs = self.rng.choice(starts, (questions * (config.candidates if len(self) else 1), 2))
        if len(self) > 0:
            pairs = pairs[np.argsort(-self.disagreement(pairs), kind="stable")[:questions]]
        score_a, score_b = self.score(pairs)
        labels = labels_from_scores(score_a, score_b, config.hard, config.tie_margin)
        kept = ~least_sure(config.abstain, log_odds(score_a, score_b))
        left_out = self.accuracy(pairs[~kept], labels[~kept])
        pairs, labels = pairs[kept], labels[kept]
        sides = [self.memory.segments(side, config.segment_steps) for side in pairs.T]
        new = {name: np.stack([side[number] for side in sides], 1) for number, name in enumerate(("obs", "actions"))}
        for name, value in {**new, "labels": labels}.items():
            self.answers[name] = np.concatenate([self.answers[name], value.astype(np.float32)])
        self.reward, self.optimizer = self.begin_anew()
        self.standardise()
        losses = [self.learn() for _ in range(config.steps)]
        self.memory.relabel(self)
        return {
            "feedback/answers": len(self),
            "feedback/ties": float((labels == 0.5).mean()),
            "feedback/loss": float(np.mean(losses[-50:])),
            "feedback/label_accuracy": self.accuracy(pairs, labels),
            "feedback/left_out_accuracy": left_out,
        }

    def accuracy(self, pairs: np.ndarray, labels: np.ndarray) -> float:
        """Share of labels (Q,) that agree with true returns of pairs (Q, 2), ties aside; NaN where there is nothing to judge."""
        returns = self.true_returns(pairs)
        decided = (returns[:, 0] != returns[:, 1]) & (labels != 0.5)
        right = ((labels > 0.5) == (returns[:, 1] > returns[:, 0]))[decided]
        return float(right.mean()) if decided.any() else float("nan")

    def starts(self) -> np.ndarray:
        """Numbers of all transitions from which a whole segment of one episode is remembered."""
        firsts, steps = [*self.episodes["first"], self.memory.added], self.config.segment_steps
        remembered = self.memory.added - len(self.memory)
        return np.concatenate([np.arange(max(first, remembered), end - steps + 1) for first, end in pairwise(firsts)])

    def begin_anew(self) -> tuple[BoundedReward, torch.optim.Optimizer]:
        """Untaught members and their optimiser; others after every session.

        What was learnt from the first answers, of a hand that has hardly moved, is no start for what comes: such members
        answer to an outstretched arm with a saturated reward, and stay there (docs/lab.md).
        """
        config, (obs_dim, action_dim) = self.config, (self.answers[name].shape[-1] for name in ("obs", "actions"))
        rngs = member_rngs(range(config.members), f"reward {self.seed} after {len(self)}")
        reward = BoundedReward(rngs, obs_dim, action_dim, config.hidden, config.sharpness)
        return reward, adam(reward, config.learning_rate)

    def standardise(self) -> None:
        """Let the reward see what has been met so far with mean 0 and deviation 1; numbers that never change stay as they are."""
        obs, _ = self.memory.segments(np.arange(self.memory.added - len(self.memory), self.memory.added), 1)
        std = obs[:, 0].std(0)
        self.reward.mean.copy_(torch.from_numpy(obs[:, 0].mean(0)))
        self.reward.std.copy_(torch.from_numpy(np.where(std > 1e-3, std, 1.0)))

    @torch.no_grad()
    def disagreement(self, pairs: np.ndarray) -> np.ndarray:
        """Standard deviation over members of P(second preferred), (N,), of pairs of first transitions (N, 2)."""
        scores = []
        for side in pairs.T:
            segments = self.memory.segments(side, self.config.segment_steps)
            obs, actions = (torch.from_numpy(part).expand(self.config.members, *part.shape) for part in segments)
            scores.append(self.reward.scores(obs, actions))
        return torch.sigmoid(scores[1] - scores[0]).std(0).numpy()

    def score(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (Q, members) of both sides, as the teacher sees pairs of first transitions (Q, 2)."""
        if self.scripted:
            returns = self.true_returns(pairs)
            return returns[:, :1], returns[:, 1:]
        columns = []
        starts, where = np.unique(pairs, return_inverse=True)
        with closing(make_env(self.env_id)) as env:
            env.reset(seed=0)
            for teacher in self.teachers:
                view = teacher.members[0]
                with Renderer(env, view.frame_size, view.camera) as renderer:
                    scores = [teacher.score(self.draw(start, renderer)[None], [self.instruction])[0] for start in starts]
                columns.append(np.stack(scores))
        scored = np.concatenate(columns, axis=1)[where.reshape(pairs.shape)]
        return scored[:, 0], scored[:, 1]

    def draw(self, start: int, renderer: Renderer) -> np.ndarray:
        """The clip (1 + T, H, W, 3) of the segment that begins with transition number `start`."""
        episode = int(np.searchsorted(self.episodes["first"], start, side="right")) - 1
        steps = start + frame_steps(0, self.config.segment_steps, self.config.frames)
        dynamic = np.concatenate([self.episodes["opening"][episode][None], self.states[steps % len(self.states), 1:]])
        return renderer.frames(self.episodes["static"][episode], dynamic)

    def learn(self) -> float:
        """One Bradley-Terry step on some of all answers, drawn for each member; the mean loss."""
        members = self.config.members
        rows = self.rng.integers(len(self), size=(members, self.config.batch))
        obs, actions = (torch.from_numpy(self.answers[name][rows]) for name in ("obs", "actions"))  # (M, B, 2, K, ...)
        a, b = (self.reward.scores(obs[:, :, side], actions[:, :, side]) for side in range(2))
        loss, _ = preference_loss(a, b, torch.from_numpy(self.answers["labels"][rows]))
        descend(self.optimizer, loss)
        return float(loss.detach().mean())

    def true_returns(self, pairs: np.ndarray) -> np.ndarray:
        """True returns of segments (Q, 2): what a VLP is compared with, and what a scripted teacher says."""
        rows = (pairs[..., None] + np.arange(self.config.segment_steps)) % len(self.states)
        return self.states[rows, 0].sum(-1)

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything but the networks and the states' file, for save_tensors."""
        self.states.flush()
        tensors = {f"feedback/{name}": torch.from_numpy(value) for name, value in self.answers.items()}
        tensors |= {f"feedback/{name}": torch.from_numpy(np.array(self.episodes[name])) for name in ("static", "opening")}
        tensors["feedback/states"] = torch.from_numpy(self.states[self.memory.witnesses()])
        tensors["feedback/states/sha256"] = digest_rows(self.states, self.memory.numbers())
        return tensors, {"feedback": {"rng": self.rng.bit_generator.state, "first": self.episodes["first"]}}

    def unpack(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """What `pack` gave; what the memory holds has been put back before."""
        check_witnesses(self.states[self.memory.witnesses()], tensors.get("feedback/states"), self.path)
        check_digest(digest_rows(self.states, self.memory.numbers()), tensors.get("feedback/states/sha256"), self.path)
        self.answers = {name: tensors[f"feedback/{name}"].numpy() for name in self.answers}
        self.rng.bit_generator.state = meta["feedback"]["rng"]
        self.episodes = {name: list(tensors[f"feedback/{name}"].numpy()) for name in ("static", "opening")}
        self.episodes["first"] = list(meta["feedback"]["first"])


def check(teacher: str, config: FeedbackConfig, env: ControlEnv) -> None:
    """RoboprefError for settings that no questions can come of."""
    if teacher == "vlp" and (not env.env_id.startswith("metaworld/") or env.repeat != 1):
        raise RoboprefError(
            f"reward=vlp is for env=metaworld/TASK with action_repeat=1, not {env.env_id} with {env.repeat}; "
            "reward=bradley_terry asks a scripted teacher, anywhere"
        )
    if teacher == "vlp" and not config.model:
        raise UsageError("reward=vlp asks a VLP: give feedback.model=[RUN], a folder written by `robopref train-vlp`")
    for name in ("segment_steps", "every", "questions", "most", "candidates", "members", "steps", "batch", "frames"):
        if getattr(config, name) < 1:
            raise RoboprefError(f"feedback.{name}={getattr(config, name)}: must be at least 1")
    if config.tie_margin < 0:
        raise RoboprefError(f"feedback.tie_margin={config.tie_margin}: must be at least 0")
    if config.sharpness <= 0:
        raise RoboprefError(f"feedback.sharpness={config.sharpness}: must be above 0")
    if not 0 <= config.abstain < 1:
        raise RoboprefError(f"feedback.abstain={config.abstain}: must be from 0 to below 1")


def inputs(teacher: str, config: FeedbackConfig) -> dict[str, Path]:
    """The files that the answers depend on."""
    if teacher != "vlp":
        return {}
    return {f"vlp {number}": find_model(model, "vlp") / WEIGHTS for number, model in enumerate(config.model)}
