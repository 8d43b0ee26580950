"""Which clips are compared: segments cut from episodes, and pairs of clips at random, across clusters, or from a file.

First half of annotation (preference/annotate.py); every choice is a function of the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.errors import RoboprefError
from robopref.datasets.clips import SEGMENT, Segment
from robopref.datasets.episodes import EpisodeStore
from robopref.preference.pairs_file import listed_segments, listed_videos, read_pairs


class ChosenSegments(NamedTuple):
    """What is compared."""

    segments: list[Segment]
    """Sorted, each in some pair."""
    pairs: np.ndarray
    """(P, 2) numbers of segments."""
    clusters: np.ndarray | None = None
    """(segments,) cluster 0 or 1 of a segment's episode, where pairs are across clusters."""


def choose_segments(config: AnnotateConfig, store: EpisodeStore, rng: np.random.Generator) -> ChosenSegments:
    """The pairs that `config` asks for; RoboprefError when the episodes do not hold as many."""
    if config.pairing == "file":
        assert config.pairs_file is not None
        return ChosenSegments(*listed_segments(read_pairs(config.pairs_file), store, config.pairs_file))
    wanted, sides = config.clips or 2 * config.pairs, None
    if config.pairing == "random":
        segments = draw_segments(store, wanted, rng, config.segment_length)
        pairs = random_pairs(len(segments), config.pairs, rng)
    else:
        clusters = cluster_episodes(store, rng)
        left, right = (
            draw_segments(store, half, rng, config.segment_length, np.flatnonzero(clusters == cluster))
            for cluster, half in ((0, wanted // 2), (1, wanted - wanted // 2))
        )
        segments = left + right
        pairs = cross_pairs(range(len(left)), range(len(left), len(segments)), config.pairs, rng)
        order = sorted(range(len(segments)), key=lambda number: (segments[number].episode, segments[number].start))
        segments, pairs = [segments[number] for number in order], np.argsort(order)[pairs]
        sides = np.array([0] * len(left) + [1] * len(right))[order]
    used, numbers = np.unique(pairs, return_inverse=True)
    chosen = [segments[number] for number in used]
    return ChosenSegments(chosen, numbers.reshape(-1, 2), None if sides is None else sides[used])


class ChosenVideos(NamedTuple):
    """What is compared."""

    videos: list[Path]
    """Sorted, each in some pair."""
    pairs: np.ndarray
    """(P, 2) numbers of videos."""
    left_out: int
    """Listed pairs that name a broken video."""


def choose_videos(
    config: AnnotateConfig, videos: list[Path], rng: np.random.Generator, broken: Collection[Path] = ()
) -> ChosenVideos:
    """The pairs that `config` asks for, of those `videos` that are not `broken`; RoboprefError when there are not as many."""
    sound = [number for number, video in enumerate(videos) if video not in broken]
    left_out = 0
    if config.pairing == "file":
        assert config.pairs_file is not None
        listed = listed_videos(read_pairs(config.pairs_file), videos, config.pairs_file)
        pairs = listed[np.isin(listed, sound).all(1)]
        left_out = len(listed) - len(pairs)
        if not len(pairs):
            raise RoboprefError(f"{config.pairs_file}: each of its pairs names a broken video; mend those, or list others.")
    else:
        pairs = np.array(sound)[random_pairs(len(sound), config.pairs, rng)]
    used, numbers = np.unique(pairs, return_inverse=True)
    return ChosenVideos([videos[number] for number in used], numbers.reshape(-1, 2), left_out)


def draw_segments(
    store: EpisodeStore, count: int, rng: np.random.Generator, length: int = SEGMENT, among: np.ndarray | None = None
) -> list[Segment]:
    """`count` different segments of `length` steps, uniform over all there are, or all of them when there are fewer.

    Sorted by episode and start.  among: numbers of the episodes to cut from (default: all).
    """
    index = store.index if among is None else store.index.iloc[among]
    starts = np.maximum(index["length"].to_numpy() - length + 1, 0)  # possible starts in each episode
    total = int(starts.sum())
    if length < 1 or total == 0:
        longest = int(index["length"].max())
        raise RoboprefError(
            f"{store.path}: no segment of {length} steps, the longest episode has {longest}; change --segment-length."
        )
    chosen = np.sort(rng.choice(total, min(count, total), replace=False, shuffle=False))
    ends = np.cumsum(starts)
    rows = np.searchsorted(ends, chosen, side="right")
    first = chosen - (ends - starts)[rows]
    episodes = index["episode"].to_numpy()[rows]
    return [Segment(int(episode), int(start), int(start) + length) for episode, start in zip(episodes, first, strict=True)]


def random_pairs(clips: int, pairs: int, rng: np.random.Generator) -> np.ndarray:
    """`pairs` different pairs of different clips, (P, 2) clip numbers in random order; clips are used equally often."""
    _require(pairs, clips * (clips - 1) // 2, f"{clips} clips")

    def matching() -> tuple[np.ndarray, np.ndarray]:
        shuffled = rng.permutation(clips)
        return shuffled[: clips // 2], shuffled[clips // 2 : clips // 2 * 2]

    return _collect(matching, pairs)


def cross_pairs(left: Sequence[int], right: Sequence[int], pairs: int, rng: np.random.Generator) -> np.ndarray:
    """`pairs` different pairs of a clip of `left` with one of `right`, (P, 2); a coin decides which comes first.

    The coin matters: with one cluster always first, a constant label would agree with most pairs.
    """
    _require(pairs, len(left) * len(right), f"{len(left)} and {len(right)} clips")
    fewer = min(len(left), len(right))

    def matching() -> tuple[np.ndarray, np.ndarray]:
        a, b = rng.permutation(np.asarray(left))[:fewer], rng.permutation(np.asarray(right))[:fewer]
        swap = rng.random(fewer) < 0.5
        return np.where(swap, b, a), np.where(swap, a, b)

    return _collect(matching, pairs)


def cluster_episodes(store: EpisodeStore, rng: np.random.Generator) -> np.ndarray:
    """K-means splits the episodes into two clusters [VLP, downstream protocol]; (episodes,) of 0 and 1.

    The paper does not say on what: ours is the mean and the last observation of an episode, standardised.
    """
    from sklearn.cluster import KMeans  # 1 s to import, and random pairs do without

    if len(store) < 2:
        raise RoboprefError(f"{store.path}: clusters need at least two episodes; collect more, or use --pairing random.")
    features = np.empty((len(store), 2 * store.episode(0).observations.shape[1]))
    for number in range(len(store)):
        observations = store.episode(number).observations
        features[number] = np.concatenate([observations.mean(0), observations[-1]])
    spread = features.std(0)
    features = (features - features.mean(0)) / np.where(spread > 1e-6, spread, 1.0)
    seed = int(rng.integers(2**31))
    clusters = KMeans(n_clusters=2, n_init=10, random_state=seed).fit_predict(features)
    if len(np.unique(clusters)) < 2:
        raise RoboprefError(f"{store.path}: all episodes look the same, so there are no clusters; use --pairing random.")
    return clusters


def _require(pairs: int, possible: int, what: str) -> None:
    if not 1 <= pairs <= possible:
        raise RoboprefError(f"{pairs} pairs wanted, but {what} make {possible}; change --pairs, or give more clips.")


def _collect(matching: Callable[[], tuple[np.ndarray, np.ndarray]], pairs: int) -> np.ndarray:
    """The first `pairs` different pairs of as many matchings as it takes, (P, 2); b, a is not different from a, b."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    while len(found) < pairs:
        for a, b in zip(*(side.tolist() for side in matching()), strict=True):
            found.setdefault((min(a, b), max(a, b)), (a, b))
    return np.array(list(found.values())[:pairs])
