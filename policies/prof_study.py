"""`python -m robopref.policies.prof_study --run RUN --out FILE.csv`: does the ranking rank well?

Takes a finished run of `robopref prof`.  For every candidate that ran: how its returns agree with the true ones over the data's
episodes, and what the policy that learns from it reaches; then, for each variant of the ranking, how dominance agrees with both
and what the first of the ranking is worth beside a candidate picked at random; at last what the run's own ranking would have
chosen from fewer candidates (K) or after fewer rounds (T).  A second call does what is missing, and refuses rows that other
settings made; `--summary` only reads.  Nothing here is used to rank: true rewards are read for this table
alone.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError
from robopref.configs.files import MANIFEST, as_written, digest, read_record
from robopref.configs.flags import from_flags
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.parallel import in_processes
from robopref.configs.policy import TrainConfig
from robopref.configs.prof import PROFConfig, RankingConfig
from robopref.configs.ranges import Count, Different, FirstGoal, Names, Seed, Workers
from robopref.configs.rows import fingerprint, read_named, read_rows, to_do
from robopref.datasets.d4rl import clipped, load_offline
from robopref.datasets.offline import OfflineData
from robopref.policies import offline_study
from robopref.policies.online_study import named
from robopref.policies.study import append_rows
from robopref.preference.imitation.experts import best_episodes
from robopref.preference.prof.command import read_ranking
from robopref.preference.prof.ranking import Comparison, Score, best, correlation, judge_all, rank
from robopref.preference.prof.sandbox import Sandbox
from robopref.preference.prof.written import WrittenReward

KEY = ["candidate", "seed"]
NO_POLICY = -1  # in the column seed
VARIANTS = (
    "default=",
    "delta_0=ranking.delta=0",
    "delta_.5=ranking.delta=0.5",
    "delta_1=ranking.delta=1",
    "observations=ranking.alpha_a=0",
    "actions=ranking.alpha_o=0",
    "quarter=ranking.alpha_o=0.025 ranking.alpha_a=0.025",
    "fourfold=ranking.alpha_o=0.4 ranking.alpha_a=0.4",
    "one_level=ranking.levels=[1]",
    "H_1=ranking.horizon=1",
    "H_10=ranking.horizon=10",
    "H_200=ranking.horizon=200",
    "H_all=ranking.horizon=0",
    "smooth=ranking.noise=smooth",
    "spread=ranking.spread=expert",
    "copeland=ranking.dominance=copeland",
    "data=ranking.pairs=data",
    "both=ranking.pairs=both",
    "experts_5=experts=5",
)


@dataclass(frozen=True)
class PROFStudyConfig:
    """Which run, and how its candidates are tried."""

    run: Path
    """Folder of `robopref prof`."""
    out: Path
    """CSV of what each candidate is worth; beside it goes the table of rankings, to NAME-rankings.csv."""
    learner: str = "policy=iql_d4rl"
    """Settings of `robopref train`, blanks between them."""
    seeds: Annotated[tuple[Seed, ...], Different(0)] = (0, 1)
    """Of the policies; none: no policy is trained, and only agreement is told."""
    episodes: Count = 10
    first_goal: FirstGoal = 0
    variants: Names = VARIANTS
    """NAME=SETTINGS of `robopref prof` that the candidates are ranked with again."""
    work: Path = Path("runs/prof-study")
    processes: Workers = 2
    together: bool = False
    """Let the policies of all candidates learn in one program, as offline_study has it."""
    rankings: bool = True
    """Rank again; else only try the candidates."""
    summary: bool = False
    """Print what the CSVs say, and do nothing."""


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(PROFStudyConfig, argv, "python -m robopref.policies.prof_study", __doc__)
    if config.summary:
        print(told(read_rows(config.out, KEY)))
        if beside(config.out).exists():
            print(read_named(beside(config.out)).to_string(index=False, float_format="%.3f"))
        return
    run = read_run(config.run)
    rows = try_candidates(config, run)
    if config.rankings:
        table = rankings(config, run, rows)
        append_rows(beside(config.out), pd.DataFrame(columns=["variant"]), table, ["variant"])
        print(pd.DataFrame(table).to_string(index=False, float_format="%.3f"))


def told(rows: pd.DataFrame) -> str:
    """Agreement and score of every candidate, means over seeds."""
    return str(rows.groupby("candidate")[["agreement", "score"]].mean().to_string(float_format="%.3f"))


def read_run(folder: Path) -> PROFConfig:
    """The settings of a finished run; RoboprefError when it is none."""
    if not (folder / "ranking.csv").exists():
        raise RoboprefError(f"{folder} holds no ranking.csv: give the folder of a finished run of `robopref prof`")
    with as_written(folder / MANIFEST, "run `robopref prof` again"):
        return to_dataclass(PROFConfig, read_record(folder / MANIFEST)["config"])


def candidates_of(folder: Path) -> dict[str, Path]:
    """Code of the candidates that ran, by name, in the ranking's order."""
    ranking = read_ranking(folder)
    return {name: folder / "candidates" / f"{name}.py" for name in ranking[ranking["problem"] == ""]["candidate"]}


def try_candidates(config: PROFStudyConfig, run: PROFConfig) -> pd.DataFrame:
    """The CSV, after doing what is missing in it; RoboprefError when it holds the same candidates with other settings."""
    done, candidates = read_rows(config.out, KEY), candidates_of(config.run)
    marks = {name: made_with(name, path, config, run) for name, path in candidates.items()}
    wanted = {(name, seed): mark for name, mark in marks.items() for seed in config.seeds or (NO_POLICY,)}
    missing = to_do(config.out, done, KEY, wanted)
    jobs = []
    for name, path in candidates.items():
        if seeds := tuple(seed for of, seed in missing if of == name):
            jobs.append((name, path, replace(config, seeds=() if seeds == (NO_POLICY,) else seeds), run))
    if config.together and config.seeds:
        offline_study.learn_together([settings_of(name, path, config, run) for name, path, *_ in jobs])
    for rows in in_processes(try_one, jobs, config.processes):
        done = append_rows(config.out, done, rows, KEY)
        scores = [row["score"] for row in rows]
        worth = f"agreement {rows[0]['agreement']:.2f}, score {np.mean(scores):.1f}"
        print(f"{rows[0]['candidate']}: {worth}  ({rows[0]['seconds']:.0f} s)", flush=True)
    return done


def try_one(name: str, path: Path, config: PROFStudyConfig, run: PROFConfig) -> list[dict[str, Any]]:
    """Rows of one candidate: a policy a seed."""
    started = time.process_time()
    data = clipped(load_offline(run.data))  # as the run saw it
    values = WrittenReward(path, run.sandbox)(data.obs, data.actions, data.next_obs)
    agreement = correlation(data.returns_of(values), data.returns_of(data.rewards))  # both over the same transitions
    mark = made_with(name, path, config, run)
    if not config.seeds:
        row = {"candidate": name, "seed": NO_POLICY, "agreement": agreement, "score": np.nan, "seconds": 0.0}
        return [row | {"settings": mark}]
    rows = offline_study.run_one(run.env, name, settings_of(name, path, config, run), acting(config))
    seconds = time.process_time() - started
    return [
        {"candidate": name, "seed": row["seed"], "agreement": agreement, "score": row["score"], "return": row["return"]}
        | {"steps": row["steps"], "seconds": seconds, "settings": mark}
        for row in rows
    ]


def acting(config: PROFStudyConfig) -> offline_study.OfflineStudyConfig:
    """How policies are tried out."""
    return offline_study.OfflineStudyConfig(config.out, (), episodes=config.episodes, first_goal=config.first_goal)


def made_with(name: str, path: Path, config: PROFStudyConfig, run: PROFConfig) -> str:
    """A short name for what decides a candidate's rows: its code, the data, and how a policy learns from it and acts."""
    if config.seeds:
        return offline_study.made_with(settings_of(name, path, config, run), acting(config), run.env)
    return fingerprint([digest(path), digest(run.data) if Path(run.data).exists() else run.data])


def settings_of(name: str, path: Path, config: PROFStudyConfig, run: PROFConfig) -> TrainConfig:
    """How a policy learns from a candidate."""
    words = [*config.learner.split(), f"data={run.data}", f"reward={path}", f"out={config.work / config.run.name / name}"]
    return replace(to_dataclass(TrainConfig, compose("train", words)), seeds=config.seeds)


def rankings(config: PROFStudyConfig, run: PROFConfig, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a variant of the ranking."""
    paths = candidates_of(config.run)
    worth = rows.groupby("candidate")[["agreement", "score"]].mean().loc[list(paths)]
    data = clipped(load_offline(run.data))
    pool = data if run.expert_data is None else clipped(load_offline(run.expert_data))
    table = []
    for variant in config.variants:
        name, words = (variant.removesuffix("="), []) if variant.endswith("=") else named("--variants", variant)
        ranking, experts = changed(run, words)
        scores = scored(data, best_episodes(pool, experts), paths, ranking, run)
        table.append({"variant": name} | judged(scores, worth))
    return table + chosen_from_less(read_ranking(config.run), worth)


def chosen_from_less(ranking: pd.DataFrame, worth: pd.DataFrame) -> list[dict[str, Any]]:
    """What the run's ranking, best first, chooses from K of the candidates of round 0, and after T rounds, is worth.

    For K the mean over all choices of K among n: the one on place j is the best of comb(n - 1 - j, K - 1) of comb(n, K).
    """
    ran = ranking[ranking["problem"] == ""]
    first = ran[ran["round"] == 0]["candidate"].tolist()
    rows = []
    for count in [2**power for power in range(len(first).bit_length()) if 2**power <= len(first)]:
        shares = [math.comb(len(first) - 1 - place, count - 1) / math.comb(len(first), count) for place in range(len(first))]
        mean = np.asarray(shares) @ worth.loc[first]
        rows.append({"variant": f"K_{count}", "candidates": count, "first_agreement": mean.iloc[0], "first_score": mean.iloc[1]})
    chosen = first[0]
    for number in range(int(ran["round"].max()) + 1):
        children = (ran["round"] == number) & (ran["parent"] == chosen)
        chosen = ran[children | (ran["candidate"] == chosen)]["candidate"].iloc[0]
        seen, row = int((ran["round"] <= number).sum()), worth.loc[chosen]
        rows.append({"variant": f"T_{number}", "candidates": seen, "first_agreement": row.iloc[0], "first_score": row.iloc[1]})
    return rows


def changed(run: PROFConfig, words: list[str]) -> tuple[RankingConfig, int]:
    """The run's settings of the ranking, and its number of experts, with `words` in place of some."""
    given = {word.partition("=")[0] for word in words}
    settings = to_dataclass(PROFConfig, compose("prof", [f"data={run.data}", f"out={run.out}", *words]))
    ranking = run.ranking
    for name in given:
        group, _, key = name.partition(".")
        if group == "ranking":
            ranking = replace(ranking, **{key: getattr(settings.ranking, key)})
        elif name != "experts":
            raise RoboprefError(f"--variants {name}: only ranking.NAME and experts are ranked with again")
    return ranking, settings.experts if "experts" in given else run.experts


def scored(
    data: OfflineData, experts: OfflineData, paths: dict[str, Path], ranking: RankingConfig, run: PROFConfig
) -> list[Score]:
    """Scores of all candidates under these settings."""
    fields = WrittenReward(next(iter(paths.values()))).fields
    sources = [path.read_text(encoding="utf-8") for path in paths.values()]
    with Comparison(data, experts, ranking, run.seed) as comparison:
        return rank(judge_all(comparison, Sandbox(run.sandbox), sources, fields, run.processes), ranking)


def judged(scores: list[Score], worth: pd.DataFrame) -> dict[str, float]:
    """How dominance agrees with what candidates are worth; the first's worth, that of all (random), and the best's (most)."""
    dominance = np.array([score.dominance for score in scores])
    first = worth.iloc[best(scores)]
    return {
        "candidates": len(scores),
        "with_agreement": correlation(dominance, worth["agreement"].to_numpy()),
        "with_score": correlation(dominance, worth["score"].to_numpy()),
        "first_agreement": first["agreement"],
        "first_score": first["score"],
        "random_score": worth["score"].mean(),
        "most_score": worth["score"].max(),
        "distinct": len(np.unique(dominance)),
    }


def beside(path: Path) -> Path:
    """Where the table of rankings lies."""
    return path.with_name(f"{path.stem}-rankings.csv")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
