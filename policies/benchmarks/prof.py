"""PROF's ranking and SEABO's labels of a million transitions, against a minute each.

Sixteen rewards of the grammar's are run in the sandbox on all of the data, an expert's trajectory and its noisy copies, two at a
time, and ranked.  The data are made up: 17 numbers an observation and 6 an action, as walker2d and halfcheetah have, in episodes
of 1,000 steps; what they are changes nothing in the work.
"""

from __future__ import annotations

import time

import numpy as np
from rich.console import Console
from rich.table import Table

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


def run() -> dict[str, float]:
    """Measure; print a table; return {"ratio_to_60s", "peak_mb", "seabo_ratio_to_60s"}, ratios above 1 where it is quicker."""
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
    started = time.perf_counter()
    seabo_rewards(data, expert)
    seabo = time.perf_counter() - started

    table = Table("what", "seconds", "peak MB", title=f"{TRANSITIONS:,} transitions of {DIMS[0]} and {DIMS[1]} numbers")
    table.add_row(f"ranking of {CANDIDATES} rewards, {PROCESSES} processes", f"{ranking:.1f}", f"{peak.mb:.0f}")
    table.add_row("SEABO's labels, one expert trajectory", f"{seabo:.1f}", "")
    Console().print(table)
    return {
        "ratio_to_60s": round(LIMIT / ranking, 2),
        "peak_mb": round(peak.mb),
        "seabo_ratio_to_60s": round(LIMIT / seabo, 2),
    }


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
