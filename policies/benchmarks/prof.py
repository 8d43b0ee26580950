"""PROF's ranking and SEABO's labels of a million transitions, against a minute each.

Sixteen rewards of the grammar's are run in the sandbox on all of the data, an expert's trajectory and its noisy copies, two at a
time, and ranked.  The data are made up: 17 numbers an observation and 6 an action, as walker2d and halfcheetah have, in episodes
of 1,000 steps; what they are changes nothing in the work.

"fair" is of SEABO's labels: the time of a plain script over ours, by turns, on all cores.  The script searches the nearest
neighbours with scipy's k-d tree, as the authors' code does, or with scikit-learn by brute force, which is nearly as exact (it
subtracts squares); the faster counts.  The ranking has no peer, but a limit: its authors' code is not public.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from robopref.configs.imitation import SEABOConfig
from robopref.configs.memory import PeakMemory
from robopref.configs.prof import RankingConfig, SandboxConfig
from robopref.datasets.offline import OfflineData
from robopref.preference.imitation.seabo import seabo_rewards
from robopref.preference.prof.code import Fields
from robopref.preference.prof.grammar import Grammar
from robopref.preference.prof.prompts import code_of
from robopref.preference.prof.ranking import Comparison, best, judge_all, rank
from robopref.preference.prof.sandbox import Sandbox
from robopref.preference.prof.writers import Request

TRANSITIONS, EPISODE, DIMS = 1_000_000, 1000, (17, 6)
CANDIDATES, PROCESSES = 16, 2
LIMIT = 60.0  # seconds
ROUNDS = 3


def run() -> dict[str, float]:
    """Measure; print a table; return {"ratio_to_60s", "peak_mb", "seabo_ratio_to_60s", "fair"}, above 1 where ours is quicker."""
    data, expert = made_up(TRANSITIONS, 0), made_up(EPISODE, 1)
    fields = Fields(tuple(f"o{n}" for n in range(DIMS[0])), tuple(f"a{n}" for n in range(DIMS[1])))
    grammar = Grammar(fields, expert, 0)
    sources = [code_of(grammar.answer(Request("write", 0, number, "")).text) for number in range(CANDIDATES)]
    config = RankingConfig()
    with PeakMemory() as peak:
        started = time.perf_counter()
        with Comparison(data, expert, config, 0) as comparison:
            scores = rank(judge_all(comparison, Sandbox(SandboxConfig()), sources, fields, PROCESSES), config)
        best(scores)
        ranking = time.perf_counter() - started
    failed = [score.problem for score in scores if score.evidence is None]
    if failed:
        raise RuntimeError(f"{len(failed)} of {CANDIDATES} rewards did not run, which is no ranking: {failed[0]}")
    sides: list[Callable[[OfflineData, OfflineData], object]] = [seabo_rewards]
    sides += [partial(plain_seabo, search=search) for search in SEARCHES]
    turns = [[seconds(side, data, expert) for side in sides] for _ in range(ROUNDS)]
    seabo, *plain = np.median(turns, axis=0)

    table = Table("what", "seconds", "peak MB", title=f"{TRANSITIONS:,} transitions of {DIMS[0]} and {DIMS[1]} numbers")
    table.add_row(f"ranking of {CANDIDATES} rewards, {PROCESSES} processes", f"{ranking:.1f}", f"{peak.mb:.0f}")
    table.add_row("SEABO's labels, one expert trajectory", f"{seabo:.1f}", "")
    for name, taken in zip(SEARCHES, plain, strict=True):
        table.add_row(f"the same with {name}", f"{taken:.1f}", "")
    Console().print(table)
    return {
        "ratio_to_60s": round(LIMIT / ranking, 2),
        "peak_mb": round(peak.mb),
        "seabo_ratio_to_60s": round(float(LIMIT / seabo), 2),
        "fair": round(float(min(plain) / seabo), 2),
    }


def by_tree(of_expert: np.ndarray, of_data: np.ndarray) -> np.ndarray:
    """(M,), distance of each row of the data to the nearest of the expert's."""
    return np.asarray(cKDTree(of_expert).query(of_data, workers=-1)[0])


def by_brute_force(of_expert: np.ndarray, of_data: np.ndarray) -> np.ndarray:
    """The same."""
    return np.asarray(NearestNeighbors(n_neighbors=1, algorithm="brute").fit(of_expert).kneighbors(of_data)[0][:, 0])


SEARCHES = {"scipy's k-d tree": by_tree, "scikit-learn's brute force": by_brute_force}


def plain_seabo(data: OfflineData, expert: OfflineData, search: str) -> np.ndarray:
    """(M,), SEABO's rewards in a few lines."""
    config = SEABOConfig()
    of_data, of_expert = (
        np.concatenate([some.observations[some.rows], some.actions, some.observations[some.rows + 1]], 1, dtype=np.float64)
        for some in (data, expert)
    )
    size = data.dims[1] if config.per_action else 1
    return np.asarray(config.alpha * np.exp(-config.beta / size * SEARCHES[search](of_expert, of_data)))


def seconds(label: Callable[[OfflineData, OfflineData], object], data: OfflineData, expert: OfflineData) -> float:
    """Seconds of one labelling."""
    started = time.perf_counter()
    label(data, expert)
    return time.perf_counter() - started


def made_up(transitions: int, seed: int) -> OfflineData:
    """Data of random numbers."""
    rng, episodes = np.random.default_rng(seed), -(-transitions // EPISODE)
    return OfflineData(
        observations=rng.standard_normal((transitions + episodes, DIMS[0]), np.float32),
        actions=rng.uniform(-1, 1, (transitions, DIMS[1])).astype(np.float32),
        rewards=np.zeros(transitions, np.float32),
        first=np.minimum(np.arange(episodes + 1) * EPISODE, transitions),
        terminated=np.zeros(episodes, bool),
        name="made up",
    )
