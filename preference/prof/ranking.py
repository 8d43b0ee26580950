"""Reward preference ranking (RPR): which written reward tells an expert from noisy copies of itself, without a simulator.

    with Comparison(data, experts, RankingConfig()) as comparison:
        scores = rank([judge(comparison, sandbox, source, fields) for source in sources], config)

Comes after candidates are written; goes to the loop that improves the best, and to `robopref prof`'s table.  Reconstruction: the
paper's abstract and its reviews give noise on observations and actions by their standard deviations, the names delta, alpha_o,
alpha_a and H, and two kinds of dominance; everything else is ours (docs/prof.md).

Axes: N transitions asked about, L noise levels, D draws, P segments of the experts, Q random ones of the data, H steps a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np
from scipy.signal import lfilter
from scipy.stats import spearmanr

from robopref.configs.errors import RoboprefError
from robopref.configs.prof import RankingConfig
from robopref.datasets.offline import OfflineData
from robopref.preference.prof.code import Fields, RefusedCode
from robopref.preference.prof.sandbox import FailedCode, Rows, Sandbox

TINY = 1e-8  # of a pooled standard deviation
EQUAL = 1e-5  # of the larger of two means: smaller differences may be rounding
LARGEST = 1e100  # of a reward: squares of larger ones are no numbers any more
SPREAD = (
    1e-4  # of the largest value: below it a reward is a constant, and what is left may be rounding, which margins would blow up
)
SMOOTH = 0.95  # share of smooth noise that the next step keeps


@dataclass(frozen=True)
class Evidence:
    """What a reward says of the expert and of its noisy copies."""

    margins: np.ndarray  # (L, D, P) g: how much better the expert's segment is, in pooled standard deviations
    beyond: np.ndarray  # (Q, P) the same over random segments of the data
    order: float  # Spearman's correlation of a segment's mean reward with the noise in it; -1 is right
    gap: float  # expert less random segments of the data, in pooled standard deviations
    constant: float  # share of the data's transitions that are worth its commonest reward
    values: np.ndarray = field(repr=False)  # (M,) float64, what the data's transitions are worth


@dataclass(frozen=True)
class Score:
    """A candidate and where it stands; without evidence it did not run, and `problem` says why."""

    source: str = field(repr=False)
    evidence: Evidence | None
    problem: str = ""
    layers: tuple[str, ...] = ()  # of the sandbox that held
    dominance: float = -np.inf

    @property
    def margin(self) -> float:
        """Mean g."""
        return -np.inf if self.evidence is None else float(self.evidence.margins.mean())

    @property
    def key(self) -> tuple[float, float, int]:
        """What is compared: dominance, then mean g, then shorter code."""
        return self.dominance, self.margin, -len(self.source)


class Comparison:
    """The transitions that every candidate is asked about, the same for all, in memory that is shared with the sandbox.

    First all of `data`, then the experts, then noisy copies of them level by level and draw by draw.
    """

    def __init__(self, data: OfflineData, experts: OfflineData, config: RankingConfig, seed: int) -> None:
        """RoboprefError for settings that leave nothing to compare, or data of other sizes than the experts'."""
        if data.dims != experts.dims:
            raise RoboprefError(f"{experts.name} has observations and actions of {experts.dims}, {data.name} of {data.dims}")
        if not config.levels or min(config.levels) <= 0 or config.draws < 1 or config.horizon < 0:
            raise RoboprefError("ranking: give levels above 0, at least one draw, and a horizon of steps (0: whole episodes)")
        if config.alpha_o < 0 or config.alpha_a < 0 or config.alpha_o + config.alpha_a == 0:
            raise RoboprefError("ranking: alpha_o or alpha_a must be above 0, or the noisy copies are no worse")
        self.config = config
        rng = np.random.default_rng([seed, 0])
        self.starts, self.length = segments(experts, config.horizon)
        noisy = [noisy_copy(experts, data, config, level, rng) for level in config.levels for _ in range(config.draws)]
        parts = [(data.obs, data.actions, data.next_obs), (experts.obs, experts.actions, experts.next_obs), *noisy]
        self.count, self.expert_count = len(data), len(experts)
        self.random = random_segments(data, self.length, config.segments, np.random.default_rng([seed, 1]))
        obs, act, next_obs = (np.concatenate(columns, dtype=np.float32) for columns in zip(*parts, strict=True))
        self.rows = Rows(obs, act, next_obs, always=(self.count, self.expert_count))

    def evidence(self, values: np.ndarray) -> Evidence:
        """Of what a candidate says of all rows, (N,)."""
        config = self.config
        of_data, rest = values[: self.count], values[self.count :].reshape(-1, self.expert_count)
        clean, noisy = rest[0], rest[1:].reshape(len(config.levels), config.draws, self.expert_count)
        steps = self.starts[:, None] + np.arange(self.length)
        good, bad = clean[steps], noisy[:, :, steps]  # (P, H), (L, D, P, H)
        means = bad.mean(-1)
        levels = np.concatenate([np.zeros(len(good)), np.repeat(config.levels, config.draws * len(good))])
        some = of_data[self.random]
        return Evidence(
            margins=margin(good, bad),
            beyond=margin(good, some[:, None]),
            order=correlation(levels, np.concatenate([good.mean(-1), means.ravel()])),
            gap=float(margin(good.ravel(), some.ravel())) if some.size else float("nan"),
            constant=commonest(of_data),
            values=of_data,
        )

    def close(self) -> None:
        """Give the memory back."""
        self.rows.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def margin(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """g = (mean good - mean bad) / (pooled standard deviation + 1e-8) over the last axis.

    Pooled: the root of the mean of both variances.  0 where values differ by rounding alone, which g would blow up.
    """
    pooled, means = np.sqrt((good.var(-1) + bad.var(-1)) / 2), (good.mean(-1), bad.mean(-1))
    difference = means[0] - means[1]
    rounding = np.maximum(np.abs(difference), pooled) <= EQUAL * np.maximum(np.abs(means[0]), np.abs(means[1]))
    result: np.ndarray = np.where(rounding, 0.0, difference) / (pooled + TINY)
    return result


def segments(experts: OfflineData, horizon: int) -> tuple[np.ndarray, int]:
    """First transitions (P,) of the experts' segments, one after the other, and their length in steps.

    horizon 0: the whole of each episode, cut to the shortest; a horizon longer than that is cut to it, too.
    """
    shortest = int(experts.lengths.min())
    length = min(horizon, shortest) or shortest
    starts = [np.arange(first, stop - length + 1, length) for first, stop in pairwise(experts.first)]
    if horizon == 0:
        starts = [part[:1] for part in starts]
    return np.concatenate(starts), length


def random_segments(data: OfflineData, length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers (count, length) of transitions of random segments inside episodes; none where all episodes are shorter."""
    room = np.maximum(data.lengths - length + 1, 0)
    if not room.sum():
        return np.zeros((0, length), np.int64)
    chosen = rng.integers(room.sum(), size=count)
    ends = np.cumsum(room)
    episode = np.searchsorted(ends, chosen, side="right")
    starts = data.first[episode] + chosen - (ends - room)[episode]
    return starts[:, None] + np.arange(length)


def noisy_copy(
    experts: OfflineData, data: OfflineData, config: RankingConfig, level: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """obs, actions and next_obs (M, .) of the experts with noise of `level` times alpha_o and alpha_a standard deviations.

    The next observation of a step is the noisy observation of the next; actions stay in the range that data and experts have.
    """
    whose = data if config.spread == "data" else experts
    drawn = noise(experts.observations.shape, experts.first + np.arange(experts.episodes + 1), config.noise, rng)
    observations = experts.observations + level * config.alpha_o * whose.observations.std(0) * drawn
    drawn = noise(experts.actions.shape, experts.first, config.noise, rng)
    actions = experts.actions + level * config.alpha_a * whose.actions.std(0) * drawn
    ends = [both(x.actions) for x in (data, experts) for both in (np.min, np.max)]
    rows = experts.rows
    return observations[rows], np.clip(actions, min(ends), max(ends)), observations[rows + 1]


def noise(shape: tuple[int, ...], first: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Gaussian numbers of deviation 1; with kind smooth each is SMOOTH times the one before it in its episode, and new noise."""
    drawn = rng.standard_normal(shape)
    if kind == "white":
        return drawn
    fresh = np.sqrt(1 - SMOOTH**2)
    for start, stop in pairwise(first):
        part = drawn[start:stop]
        part[1:], _ = lfilter([fresh], [1, -SMOOTH], part[1:], axis=0, zi=SMOOTH * part[:1])
    return drawn


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; 0 where one of them does not vary."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(spearmanr(x, y).statistic)


def commonest(values: np.ndarray) -> float:
    """Share of `values` (M,) that equal the commonest of them."""
    ordered = np.sort(values)
    edges = np.flatnonzero(np.diff(ordered, prepend=-np.inf, append=np.inf))
    return float(np.diff(edges).max() / len(values))


def judge(comparison: Comparison, sandbox: Sandbox, source: str, fields: Fields) -> Score:
    """A candidate with its evidence, or with what is wrong with it; not yet with its dominance."""
    try:
        said = sandbox.run(source, fields, comparison.rows)
    except (RefusedCode, FailedCode) as problem:
        return Score(source, None, str(problem))
    if said.row is not None:
        return Score(source, None, f"what it says of row {said.row} depends on other rows: a reward is of one transition")
    if (lost := float((~np.isfinite(said.values)).mean())) > 0:
        return Score(source, None, f"it is not finite on {lost:.2%} of the transitions")
    if (largest := np.abs(said.values).max()) > LARGEST:
        return Score(source, None, f"it says {largest:.3g} of a transition; at most {LARGEST:g}")
    if 0 < np.ptp(said.values) < SPREAD * largest:
        return Score(source, None, f"its values differ by less than {SPREAD:g} of their size: leave the constant out")
    return Score(source, comparison.evidence(said.values), layers=said.layers)


def judge_all(comparison: Comparison, sandbox: Sandbox, sources: Sequence[str], fields: Fields, processes: int) -> list[Score]:
    """Likewise of several, `processes` at a time: each runs in a process of its own anyway.

    An interrupt ends those that run, and the sandbox.
    """
    pool = ThreadPoolExecutor(max(1, processes))
    try:
        return list(pool.map(lambda source: judge(comparison, sandbox, source, fields), sources))
    except BaseException:
        sandbox.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def rank(scores: Sequence[Score], config: RankingConfig) -> list[Score]:
    """The same, each with its dominance, in their order: those that did not run have none."""
    compared = [groups(score.evidence, config) for score in scores if score.evidence is not None]
    found = iter((shares if config.dominance == "share" else copeland)(compared, config.delta))
    return [score if score.evidence is None else replace(score, dominance=next(found)) for score in scores]


def groups(evidence: Evidence, config: RankingConfig) -> list[np.ndarray]:
    """The kinds of pairs that count, each as much as another; RoboprefError where the data have none."""
    if config.pairs != "noise" and not evidence.beyond.size:
        raise RoboprefError("ranking.pairs: all episodes of the data are shorter than the expert's segments; lower horizon")
    kinds = {"noise": [evidence.margins], "data": [evidence.beyond], "both": [evidence.margins, evidence.beyond]}
    return kinds[config.pairs]


def shares(compared: Sequence[Sequence[np.ndarray]], delta: float) -> list[float]:
    """Dominance A: the share of pairs that each wins, the mean over kinds of pairs.  compared: a candidate, a kind."""
    return [float(np.mean([(g > delta).mean() for g in kinds])) for kinds in compared]


def copeland(compared: Sequence[Sequence[np.ndarray]], delta: float) -> list[float]:
    """Dominance B: how many others each beats less how many beat it, over how many others there are.

    A pair is for the one with the larger g of those that win it; who has more, in the mean over kinds of pairs, beats the other.
    """
    counted = [[np.where(g > delta, g, -np.inf) for g in kinds] for kinds in compared]

    def beats(a: list[np.ndarray], b: list[np.ndarray]) -> float:
        return float(np.sign(np.mean([(x > y).mean() - (y > x).mean() for x, y in zip(a, b, strict=True)])))

    return [sum(beats(a, b) for b in counted) / max(1, len(counted) - 1) for a in counted]


def best(scores: Sequence[Score]) -> int:
    """Number of the one that is first; RoboprefError when none ran."""
    if all(score.evidence is None for score in scores):
        why = scores[0].problem if scores else "there is none"
        raise RoboprefError(f"no candidate could be run; the first: {why}")
    return max(range(len(scores)), key=lambda number: scores[number].key)
