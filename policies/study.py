"""`python -m robopref.policies.study VARIANTS.yaml --out results.csv`: policy settings compared on tasks not reported on.

For every task, seed and variant: offline data of the pipeline's kind, labels by the true return (or by a VLP), one policy,
its success over fixed goals; a row each, appended to the CSV as it is done.  A second call does what is missing, and refuses
rows that other settings made; `--summary` only reads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import tyro

from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.files import NO_MATTER, atomic_file, digest, is_words, read_yaml
from robopref.configs.flags import from_flags
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.parallel import in_processes
from robopref.configs.pipeline import PipelineConfig
from robopref.configs.policy import EvaluateConfig, PolicyConfig, TrainConfig
from robopref.configs.ranges import Device, FirstGoal, Seeds, Workers
from robopref.configs.rows import fingerprint, read_named, read_rows, to_do
from robopref.datasets import collect
from robopref.embodied.statistics import summarise
from robopref.embodied.tasks import expand_tasks
from robopref.policies import evaluate, train
from robopref.preference import annotate
from robopref.preference.hub import WEIGHTS, find_model

KEY = ["task", "seed", "labeller", "variant"]
KINDS = ("bc", "piql", "ipl", "cpl")


@dataclass(frozen=True)
class StudyConfig:
    """Which settings are compared, on what."""

    variants: Annotated[Path, tyro.conf.Positional]
    """YAML: name -> {policy: bc | piql | ipl | cpl, set: [overrides of `robopref pipeline`]}."""
    out: Path
    """CSV to append to."""
    work: Path = Path("runs/study")
    """Folder for data, labels and policies, kept between calls."""
    tasks: tuple[str, ...] = ("drawer-open",)
    """Where settings are chosen: never a task that results are reported on."""
    seeds: Seeds = (0,)
    """Of the data and the pairs; policies have the pipeline's policy_seeds."""
    only: tuple[str, ...] = ()
    """Variants to run, by name; default: all."""
    model: tuple[Path, ...] = ()
    """VLP run folder or hf-hub:OWNER/NAME that labels, or an ensemble, if it never saw these tasks; default: the true return."""
    first_goal: FirstGoal = 1000
    """Environment seed of the first goal; the pipeline reports on those from 0 on."""
    device: Device = "cpu"
    """Where policies are trained: cpu, or auto, cuda, cuda:1; a GPU gains from networks of the paper's size on."""
    processes: Workers = 2
    summary: bool = False
    """Print what the CSV says, and do nothing."""


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(StudyConfig, argv, "python -m robopref.policies.study", __doc__)
    done = read_rows(config.out, KEY)
    if not config.summary:
        done = run(config, done)
    if done.empty:
        print("no rows yet")
        return
    table = done.pivot_table(index="variant", columns="task", values="mean")
    print(table.assign(mean=table.mean(axis=1)).to_string(float_format="%.2f"))


def run(config: StudyConfig, done: pd.DataFrame) -> pd.DataFrame:
    """The table, after doing what is missing in it; RoboprefError when it holds the same variants with other settings."""
    variants = read_variants(config.variants)
    unknown = [name for name in config.only if name not in variants]
    if unknown:
        raise RoboprefError(f"--only {unknown[0]}: {config.variants} has no such variant.{nearest(unknown[0], variants)}")
    labeller = "vlp" if config.model else "scripted"
    marks = {
        (name, seed, labeller, variant): mark
        for variant, seed in product(config.only or variants, config.seeds)
        for mark in [made_with(config, seed, variants[variant])]
        for name in expand_tasks(config.tasks)
    }
    jobs = [(name, seed, variant) for name, seed, _, variant in to_do(config.out, done, KEY, marks)]
    for seed in config.seeds:
        names = tuple(sorted({name for name, of, _ in jobs if of == seed}))
        collect_offline(pipeline_settings([f"seed={seed}"]), config.work / f"data-{seed}", names, config.processes)
    rows = in_processes(
        run_one, [(config, name, seed, variant, variants[variant]) for name, seed, variant in jobs], config.processes
    )
    for row in rows:
        done = append_rows(config.out, done, [row], KEY)
        print(f"{row['variant']}, {row['task']}, seed {row['seed']}: {row['mean']:.2f}  ({row['seconds']:.0f} s)", flush=True)
    return done


def made_with(config: StudyConfig, seed: int, what: Mapping[str, Any]) -> str:
    """A short name for what decides a row: settings of data, labels, policy and goals, and the models that label."""
    settings = pipeline_settings([f"seed={seed}", *what.get("set", [])])
    data = pipeline_settings([f"seed={seed}"]).offline  # which all variants share
    policy, labels = getattr(settings, what["policy"]), None if what["policy"] == "bc" else settings.annotate
    models = [digest(find_model(str(model), "vlp") / WEIGHTS) for model in config.model] if labels else []
    goals = (settings.goals, settings.max_steps, config.first_goal)
    return fingerprint([data, labels, models, policy, settings.policy_seeds, goals], without=NO_MATTER)


def read_variants(path: Path) -> dict[str, dict[str, Any]]:
    """The variants file, checked; RoboprefError naming it otherwise."""
    form = "write NAME: {policy: cpl, set: [cpl.alpha=0.2]}, a line a variant"
    read = read_yaml(path, form)
    if not isinstance(read, dict) or not all(isinstance(name, str) for name in read):
        raise RoboprefError(f"{path}: {form}")
    for name, variant in read.items():
        if not isinstance(variant, Mapping) or variant.get("policy") not in [*KINDS]:
            raise RoboprefError(f"{path}: variant {name} needs `policy: {KINDS[0]}`, or {', '.join(KINDS[1:])}")
        if not is_words(variant.get("set", [])):
            raise RoboprefError(f"{path}: variant {name}: set must be a list of settings, set: [cpl.alpha=0.2]")
    return read


def pipeline_settings(overrides: list[str]) -> PipelineConfig:
    """The pipeline's settings at the quick scale with `overrides`."""
    return to_dataclass(PipelineConfig, compose("pipeline", overrides))


def collect_offline(settings: PipelineConfig, folder: Path, tasks: tuple[str, ...], processes: int) -> None:
    """Offline data of `tasks` as the pipeline makes it, in `folder`: before the policies, which would collect it side by side."""
    if tasks:
        seed = settings.seed + 1
        collect.run(replace(settings.offline, out=folder, tasks=tasks, clips=None, seed=seed, processes=processes))


def append_rows(path: Path, done: pd.DataFrame, rows: list[dict[str, Any]], key: list[str]) -> pd.DataFrame:
    """`done` and the new rows, also written to the CSV, all or nothing."""
    new = pd.DataFrame(rows)
    done = (new if done.empty else pd.concat([done, new], ignore_index=True)).sort_values(key, ignore_index=True)
    with atomic_file(path) as temp:
        done.to_csv(temp, index=False, float_format="%.4f", lineterminator="\n")
    return done


def run_one(config: StudyConfig, name: str, seed: int, variant: str, what: dict[str, Any]) -> dict[str, Any]:
    """Labels, policy and evaluation of one variant: a row of the CSV."""
    started = time.time()
    settings = pipeline_settings([f"seed={seed}", *what.get("set", [])])
    data = config.work / f"data-{seed}" / name
    labeller: Literal["scripted", "vlp"] = "vlp" if config.model else "scripted"
    out = config.work / f"{labeller}-{seed}" / name / variant
    labels = out / "labels.parquet"
    annotation = replace(
        settings.annotate, episodes=data, out=labels, labeller=labeller, model=config.model, seed=seed, threads=1
    )
    annotate.run(annotation)
    policy = getattr(settings, what["policy"])
    train_policy(settings, policy, data, None if what["policy"] == "bc" else labels, out, config.device)
    trained = time.time()
    success = evaluate_policy(settings, name, out, config.first_goal)
    (row,) = summarise(success).values()
    which = dict(zip(KEY, (name, seed, labeller, variant), strict=True))
    return which | row | {"seconds": trained - started, "settings": made_with(config, seed, what)}


def train_policy(settings: PipelineConfig, policy: PolicyConfig, data: Path, labels: Path | None, out: Path, device: str) -> None:
    """All policy seeds in one program; the model goes to out/policy."""
    train.run(TrainConfig(out / "policy", data, policy, labels, settings.policy_seeds, device=device))


def evaluate_policy(settings: PipelineConfig, task: str, out: Path, first_goal: int) -> pd.DataFrame:
    """success.csv of out/policy on the goals from `first_goal` on."""
    config = EvaluateConfig(
        policy=(str(out / "policy"),),
        out=out / "evaluation",
        env=f"metaworld/{task}",
        goals=settings.goals,
        first_goal=first_goal,
        max_steps=settings.max_steps,
    )
    return read_named(evaluate.run(config) / "success.csv")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
