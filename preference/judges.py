"""What a comparison (preference/compare.py) is made of: who judges clips, and the clips that all of them are asked about.

Axes: B tuples, M frames of the banks, N segments, P pairs, T frames after the opening.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.arrays import read_array, sign
from robopref.configs.compare import CompareConfig
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, digest
from robopref.configs.run import choose_device
from robopref.datasets.clips import FRAMES, FrameBank, Segment, render_clips
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.envs import make_env
from robopref.embodied.render import Renderer
from robopref.embodied.tasks import KINDS, expand_tasks, instructions
from robopref.preference.agreement import better_cluster
from robopref.preference.baselines.goal_image import Goals, goal_of_bank
from robopref.preference.baselines.load import constants, files, load_baseline
from robopref.preference.baselines.motion import MOTIONS
from robopref.preference.features import FeatureScorer, cached_features, encode_clips
from robopref.preference.generalisation import RowScores, feature_scores, motion_scores
from robopref.preference.hub import WEIGHTS
from robopref.preference.pairs import choose_segments
from robopref.preference.scoring import hand_positions, returns_so_far, true_returns
from robopref.preference.vlp import VLPScorer

CHUNK = 32  # clips encoded at a time
CLUSTER_BIT = "better-cluster"
WITHOUT_PIXELS = ("constant", "scripted", CLUSTER_BIT, *MOTIONS)
"""Labellers that look at no frame; the constant, the cluster bit and the motions say what a number can be had for."""
EDITION = 2  # of what a row holds and how it is measured: a table of another edition is not continued


@dataclass(frozen=True)
class Entry:
    """One model or baseline, of one seed."""

    name: str
    seed: int
    kind: str  # vlp, of WITHOUT_PIXELS or of BASELINES
    where: str = ""  # run folder, or encoder


@dataclass(frozen=True)
class Judge:
    """What an entry says of clips of the banks, and of a task's segments."""

    orders: RowScores | None
    """None: it says nothing of whole episodes."""
    segments: Callable[[str, str], np.ndarray]
    """(task, instruction) -> f(v | l), (N,)."""


class Pairs(NamedTuple):
    """Segments of a task's offline data and which are compared, across two clusters of episodes as in the paper."""

    segments: list[Segment]
    pairs: np.ndarray
    """(P, 2) numbers of segments."""
    returns: np.ndarray
    """(N,) true returns."""
    clusters: np.ndarray
    """(N,) 0 or 1."""


class Data:
    """What all are measured on: banks, and segments of offline data with their true returns."""

    def __init__(self, config: CompareConfig) -> None:
        self.config = config
        self.tasks = expand_tasks(config.tasks)
        self.others = tuple(name for name in expand_tasks(config.others) if name not in self.tasks)
        self._pairs: dict[str, Pairs] = {}
        self._features: dict[tuple[str, str], np.ndarray] = {}
        self._digests: dict[Path, str] = {}

    @cached_property
    def bank(self) -> FrameBank:
        """The frames of all tasks."""
        return FrameBank([self.config.clips / name for name in (*self.others, *self.tasks)])

    def store(self, task: str) -> EpisodeStore:
        """The offline data of a task."""
        assert self.config.offline is not None
        return EpisodeStore(self.config.offline / task)

    def pairs(self, task: str) -> Pairs:
        """The pairs of a task's segments; the same for all entries."""
        if task not in self._pairs:
            store = self.store(task)
            settings = AnnotateConfig(pairs=self.config.pairs, pairing="clusters")
            segments, pairs, clusters = choose_segments(settings, store, np.random.default_rng(self.config.seed))
            assert clusters is not None
            self._pairs[task] = Pairs(segments, pairs, true_returns(store, segments), clusters)
        return self._pairs[task]

    def pixels(self, task: str, size: int) -> np.ndarray:
        """The clips (N, 1 + T, size, size, 3) of a task's segments, as the banks' camera sees them; drawn once, then kept."""
        store, config = self.store(task), self.config
        made_from = [self._digest(store.path), self.bank.camera, size, config.pairs, config.seed]
        path = config.work / "segments" / f"{task}-{_key(made_from)}.npy"
        if not path.exists():
            with closing(make_env(store.env_id)) as env, Renderer(env, size, self.bank.camera) as renderer:
                drawn = np.stack(list(render_clips(store, self.pairs(task).segments, renderer)))
            with atomic_file(path) as aside:
                np.save(aside, drawn)
                sign(aside)
        try:
            return read_array(path, "r")
        except (OSError, ValueError) as error:
            raise RoboprefError(f"{path}: these clips are damaged ({error}); delete this file and run again") from error

    def judge(self, entry: Entry) -> Judge:
        """The entry, loaded, with the features of every frame that it may be asked about."""
        if entry.kind in WITHOUT_PIXELS:
            return self._judge_without_pixels(entry.kind)
        config = self.config
        device = str(choose_device(config.device))
        if entry.kind == "vlp":
            scorer: FeatureScorer = VLPScorer.load(Path(entry.where), device)
        else:
            settings = replace(config.settings, encoder=entry.where)
            scorer = load_baseline(entry.kind, settings, FRAMES, device, self.goals() if entry.kind == "goal-image" else None)
        if scorer.camera != self.bank.camera or scorer.frames != FRAMES:
            wants = f"{scorer.frames} frames a clip from {scorer.camera}"
            raise RoboprefError(f"{entry.name} wants {wants}; the banks in {config.clips} hold {FRAMES} from {self.bank.camera}")

        def segments(task: str, said: str) -> np.ndarray:
            features = self.segment_features(task, scorer)
            return scorer.score_features(features, [said] * len(features))

        return Judge(feature_scores(scorer, cached_features(self.bank, scorer.backbone, config.work / "features")), segments)

    def _judge_without_pixels(self, kind: str) -> Judge:
        if kind == "constant":
            return Judge(lambda rows, said: np.zeros(len(rows)), lambda task, said: np.zeros(len(self.pairs(task).segments)))
        if kind == "scripted":
            assert self.config.episodes is not None
            return Judge(self._mean_rewards(self.config.episodes), lambda task, said: self.pairs(task).returns)
        if kind == CLUSTER_BIT:

            def better(task: str, said: str) -> np.ndarray:
                _, pairs, returns, clusters = self.pairs(task)
                return better_cluster(returns[pairs[:, 1]] - returns[pairs[:, 0]], clusters[pairs]) * clusters

            return Judge(None, better)
        moved = MOTIONS[kind]
        return Judge(
            motion_scores(self.bank, kind),
            lambda task, said: moved(*hand_positions(self.store(task), self.pairs(task).segments)),
        )

    def segment_features(self, task: str, scorer: FeatureScorer) -> np.ndarray:
        """What a scorer's backbone sees of a task's segments, (N, (1 + T) * P, D); kept for the models that share it."""
        key = (scorer.backbone.digest, task)
        if key not in self._features:
            clips = self.pixels(task, scorer.frame_size)
            chunks = [np.array(clips[start : start + CHUNK]) for start in range(0, len(clips), CHUNK)]
            self._features[key] = np.concatenate([encode_clips(chunk, scorer.backbone) for chunk in chunks])
        return self._features[key]

    def goals(self) -> Goals:
        """A goal picture of each task, and all sentences that ask for it."""
        names = (*self.others, *self.tasks)
        asked_by = {sentence: k for k, name in enumerate(names) for kind in KINDS for sentence in instructions(name, kind)}
        return Goals([goal_of_bank(self.bank, name) for name in names], asked_by)

    def identity(self, entry: Entry, task: str) -> str:
        """Changes with everything that the rows of an entry on a task depend on."""
        config = self.config
        settings = replace(config.settings, encoder=entry.where)
        weights = {"model": Path(entry.where) / WEIGHTS} if entry.kind == "vlp" else files(entry.kind, settings)
        named = entry.where if entry.where.startswith("open_clip:") else ""  # what is a file counts by its content
        read = ("index.parquet", "states.npy") if entry.kind in MOTIONS else ("index.parquet",)
        banks = [self._digest(config.clips / name / file) for name in (*self.others, task) for file in read]
        offline = [self._digest(config.offline / task), config.pairs] if config.offline is not None else []
        used = {name: self._digest(path) for name, path in weights.items()}
        said = [entry.kind, named, used, constants(entry.kind, settings)]
        return _key([EDITION, *said, banks, offline, config.tuples, config.seed])

    def _mean_rewards(self, episodes: Path) -> RowScores:
        """The true reward a step between the first frame of a clip and its last: the sum would count how long it is."""
        so_far, step = returns_so_far(self.bank, episodes), self.bank.index["step"].to_numpy()

        def scores(rows: np.ndarray, said: list[str]) -> np.ndarray:
            first, last = rows[:, 1], rows[:, -1]
            return (so_far[last] - so_far[first]) / np.maximum(step[last] - step[first], 1)

        return scores

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = digest(path)
        return self._digests[path]


def _key(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
