"""Preference orders that nobody had to label: ITP, ILP and IVP drawn on the fly from episodes of known level and task.

Comes from the index of a FrameBank; goes to preference/vlp.py.  A tuple is what one term of Eq. 4 needs: two clips of task b
of distinct levels, one clip of another task, an instruction of b and one of another task.

| order | clips | instruction | label |
|---|---|---|---|
| ITP | two levels of b | b | the higher level: expert > medium > random |
| ILP | the same two | another task's | equal, 0.5 |
| IVP | either, against one of another task | b | the clip of b, whatever its level |
| progress (ours) | an earlier and a later segment of one expert episode of b | b | the later |
| prefix (ours) | how an expert episode of b begins; a shorter or a random beginning | none | the expert's, the longer |

The last two may be drawn with the expert played backwards, where that shows something being done too (tasks.py).

Axes: B tuples, T frames after the opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.vlp import OrdersConfig
from robopref.datasets.clips import FRAMES
from robopref.embodied.tasks import TRAIN_PARTS, instructions, task

LEVELS = ("random", "medium", "expert")  # from worst to best
CLOSEST = 0.15  # share of an episode: prefixes whose lengths differ by less nobody could tell apart


@dataclass(frozen=True)
class Tuples:
    """A batch of preference orders; frames are row numbers of the bank."""

    a: np.ndarray  # (B, 1 + T) rows of the first clip of task b
    b: np.ndarray  # (B, 1 + T) rows of the second clip of task b
    other: np.ndarray  # (B, 1 + T) rows of a clip of another task
    label: np.ndarray  # (B,) P(b preferred) under `own`, in {0, 1}
    own: list[str]  # an instruction of task b
    foreign: list[str]  # an instruction of another task
    levels: list[tuple[str, str]]  # the worse and the better level of the pair


@dataclass(frozen=True)
class BankEpisode:
    """Rows first..first + count - 1 of the bank are one episode of `level`, `stride` environment steps apart."""

    task: str
    level: str
    first: int
    count: int


class OrderSampler:
    """Draws `Tuples` of the given tasks from a bank index; every draw is a function of the generator alone.

    part: of the instructions (embodied/tasks.py); default: what `config.wordings` says.
    """

    def __init__(
        self,
        index: pd.DataFrame,
        tasks: Sequence[str],
        config: OrdersConfig,
        part: str | None = None,
        frames: int = FRAMES,
    ) -> None:
        if config.wordings not in TRAIN_PARTS:
            hint = nearest(config.wordings, TRAIN_PARTS)
            raise UsageError(f"orders.wordings={config.wordings}: one of {', '.join(TRAIN_PARTS)}.{hint}")
        self.config, self.frames, self.tasks = config, frames, tuple(tasks)
        if len(self.tasks) < 2:
            raise RoboprefError("ILP and IVP need at least two tasks; collect more of them.")
        self.episodes: dict[tuple[str, str], list[BankEpisode]] = {}
        groups = index.groupby(["task", "level", "episode"], sort=True).indices
        for (name, level, _), rows in groups.items():
            self.episodes.setdefault((name, level), []).append(BankEpisode(name, level, int(rows[0]), len(rows)))
        shares = {"foreign": config.foreign_share, "wandering": config.wandering_share}
        levels = (*LEVELS, *(level for level, share in shares.items() if share > 0))
        missing = [(name, level) for name in self.tasks for level in levels if (name, level) not in self.episodes]
        if missing:
            raise RoboprefError(f"The frame banks hold no {missing[0][1]} episode of {missing[0][0]}; collect it first.")
        for group, episodes in self.episodes.items():
            self.episodes[group] = episodes[: max(1, round(config.episode_share * len(episodes)))]
        self.reversible = tuple(name for name in self.tasks if task(name).truly_reversible)
        self.instructions = {name: instructions(name, part or config.wordings) for name in self.tasks}

    def draw(self, batch: int, rng: np.random.Generator, own_task: str | None = None) -> Tuples:
        """A batch of `batch` tuples; task b is drawn anew for each unless `own_task` fixes it."""
        clips: dict[str, list[np.ndarray]] = {"a": [], "b": [], "other": []}
        labels, own, foreign, levels = [], [], [], []
        for _ in range(batch):
            name, stranger, alien = self._distinct_tasks(rng, own_task)
            as_segment = rng.random() < self.config.segment_share
            low, high = sorted(rng.choice(3, 2, replace=False))
            pair = (LEVELS[low], LEVELS[high])
            worse, better = (self._clip(name, level, as_segment, rng) for level in pair)
            label = int(rng.integers(2))  # a position must say nothing
            clips["a"].append(worse if label else better)
            clips["b"].append(better if label else worse)
            clips["other"].append(self._clip(stranger, LEVELS[rng.integers(3)], as_segment, rng))
            labels.append(label)
            own.append(self._sentence(name, rng))
            foreign.append(self._sentence(alien, rng))
            levels.append(pair)
        a, b, other = (np.stack(clips[key]) for key in ("a", "b", "other"))
        return Tuples(a, b, other, np.asarray(labels, np.float32), own, foreign, levels)

    def draw_progress(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Earlier and later segments of expert episodes, (B, 1 + T) rows each, and an instruction of their task [ours]."""
        earlier, later, sentences = [], [], []
        for _ in range(batch):
            name = self.tasks[rng.integers(len(self.tasks))]
            episode = self._episode(name, "expert", rng)
            first, second = self._two_segments(episode, rng)
            earlier.append(first)
            later.append(second)
            sentences.append(self._sentence(name, rng))
        return np.stack(earlier), np.stack(later), sentences

    def draw_prefixes(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Worse and better beginnings of episodes of one task, (B, 1 + T) rows each: more levels than three [ours].

        One in four is an expert's over a shorter one of the same episode, the others an expert's over a random episode's.
        """
        worse, better = [], []
        for _ in range(batch):
            expert, backwards = self._expert(rng)
            if rng.random() < 0.25:
                short, long = np.sort(rng.uniform(0.1, 1.0, 2))
                worse.append(self._spread(expert, short, backwards))
                better.append(self._spread(expert, min(1.0, max(long, short + CLOSEST)), backwards))
            else:
                worse.append(self._spread(self._worst(expert.task, False, rng), rng.uniform(0.5, 1.0)))
                better.append(self._spread(expert, rng.uniform(0.25, 1.0), backwards))
        return np.stack(worse), np.stack(better)

    def draw_later(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Earlier and later segments of expert episodes, (B, 1 + T) rows each; some played backwards [ours]."""
        earlier, later = [], []
        for _ in range(batch):
            expert, backwards = self._expert(rng)
            first, second = self._two_segments(expert, rng, backwards)
            earlier.append(first)
            later.append(second)
        return np.stack(earlier), np.stack(later)

    def draw_scenes(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Frames (B,) from anywhere in episodes of any level, instructions of their tasks, and the tasks' numbers (B,) [ours].

        From anywhere, so that a drawer is a drawer whether it is open or closed.
        """
        rows, sentences, numbers = [], [], rng.integers(len(self.tasks), size=batch)
        for number in numbers:
            episode = self._episode(self.tasks[number], LEVELS[rng.integers(3)], rng)
            rows.append(episode.first + int(rng.integers(episode.count)))
            sentences.append(self._sentence(self.tasks[number], rng))
        return np.array(rows), sentences, numbers

    def _expert(self, rng: np.random.Generator) -> tuple[BankEpisode, bool]:
        """An expert episode, and whether it is to be played backwards."""
        backwards = bool(self.reversible) and rng.random() < self.config.reversed_share
        names = self.reversible if backwards else self.tasks
        return self._episode(names[rng.integers(len(names))], "expert", rng), backwards

    def _distinct_tasks(self, rng: np.random.Generator, own_task: str | None) -> tuple[str, str, str]:
        own = int(rng.integers(len(self.tasks))) if own_task is None else self.tasks.index(own_task)
        others = (own + 1 + rng.integers(len(self.tasks) - 1, size=2)) % len(self.tasks)
        return self.tasks[own], self.tasks[others[0]], self.tasks[others[1]]

    def _sentence(self, name: str, rng: np.random.Generator) -> str:
        sentences = self.instructions[name]
        return sentences[rng.integers(len(sentences))]

    def _episode(self, name: str, level: str, rng: np.random.Generator) -> BankEpisode:
        episodes = self.episodes[name, level]
        return episodes[rng.integers(len(episodes))]

    def _worst(self, name: str, as_segment: bool, rng: np.random.Generator) -> BankEpisode:
        """An episode of the random level, or of what may stand for it."""
        foreign, wandering = self.config.foreign_share, self.config.wandering_share
        which = rng.random() if foreign + wandering > 0 else 1.0
        if which >= foreign + wandering:
            return self._episode(name, "random", rng)
        episode = self._episode(name, "foreign" if which < foreign else "wandering", rng)
        if as_segment:
            return episode
        # As long as some expert's: a policy that never succeeds goes on to the end, and its speed would tell.
        return replace(episode, count=min(episode.count, self._episode(name, "expert", rng).count))

    def _clip(self, name: str, level: str, as_segment: bool, rng: np.random.Generator) -> np.ndarray:
        episode = self._worst(name, as_segment, rng) if level == "random" else self._episode(name, level, rng)
        if not as_segment:
            return self._spread(episode)
        # What tells an expert's segment from a medium one is its end, so a level's segment is drawn near the episode's end.
        last = episode.count - 1 - int(rng.integers(3)) if level != "random" else int(rng.integers(1, episode.count))
        return self._segment(episode, max(last, 1))

    def _spread(self, episode: BankEpisode, share: float = 1.0, backwards: bool = False) -> np.ndarray:
        """The opening and T frames over the first `share` of the episode."""
        return self._rows(episode, 0, share * (episode.count - 1), backwards)

    def _segment(self, episode: BankEpisode, last: int, backwards: bool = False) -> np.ndarray:
        """The opening and T consecutive frames that end with frame `last`; fewer are spread when there are not as many."""
        last = min(last, episode.count - 1)
        return self._rows(episode, max(0, last - self.frames + 1), last, backwards)

    def _two_segments(
        self, episode: BankEpisode, rng: np.random.Generator, backwards: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """An earlier and a later segment of an episode."""
        first, second = np.sort(rng.choice(np.arange(1, max(episode.count, 3)), 2, replace=False))
        return self._segment(episode, int(first), backwards), self._segment(episode, int(second), backwards)

    def _rows(self, episode: BankEpisode, first: float, last: float, backwards: bool) -> np.ndarray:
        """Rows (1 + T,) of the opening and of frames `first` to `last`; backwards: counted from the episode's end."""
        rows = np.append(0, np.linspace(first, last, self.frames).round().astype(int))
        return episode.first + (episode.count - 1 - rows if backwards else rows)
