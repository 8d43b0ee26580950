"""`python -m robopref.policies.downstream --out FILE.csv`: labellers x policies x tasks in VLP's downstream protocol.

For every task and data seed: offline data, 100 pairs of 50-step segments, one from each of two K-means clusters of episodes;
for every labeller labels of these same pairs; for every policy five seeds in one program, judged on fixed goals.  A row a
policy seed, appended to the CSV as its policy is done.  A second call does what is missing; `--summary` only reads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.baselines import BaselineConfig
from robopref.configs.chat import ChatConfig
from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.files import as_written, digest, read_json
from robopref.configs.flags import from_flags
from robopref.configs.parallel import in_processes
from robopref.configs.pipeline import PipelineConfig
from robopref.configs.policy import PolicyConfig
from robopref.configs.ranges import Device, FirstGoal, Names, Seeds, Workers
from robopref.configs.rows import fingerprint as short_name
from robopref.configs.rows import read_named
from robopref.datasets.preferences import AGREEMENT, side_folder
from robopref.embodied.statistics import difference, iqm, over_seeds, verdict
from robopref.embodied.tasks import SPLITS, expand_tasks
from robopref.policies.study import append_rows, collect_offline, evaluate_policy, pipeline_settings, train_policy
from robopref.preference import annotate
from robopref.preference.baselines.load import BASELINES, files, lacking
from robopref.preference.baselines.motion import MOTIONS
from robopref.preference.hub import SETTINGS, WEIGHTS, find_model

SCRIPTED, NONE = "scripted", "none"  # labeller of the true return; of policies that read no label
POLICIES = ("bc", "piql", "ipl", "cpl", "cpl_kl", "dpo")
KEY = ["task", "seed", "labels", "labeller", "policy", "policy_seed"]
CELL = KEY[:-1]  # all policy seeds are trained in one program
WITHOUT_PIXELS = (annotate.CLUSTER_BIT, *MOTIONS)  # baselines that look through no encoder
MEASURES = ("accuracy", "constant_accuracy", "cluster_accuracy", "balanced_accuracy", "kendall_tau")
PROTOCOL = ("policy_seeds=[0,1,2,3,4]", "annotate.pairs=100")  # beside what the pipeline does anyway
TARGETS = {"piql": 71.0, "ipl": 57.5, "cpl": 83.8}
"""Success (%) from VLP's labels, average over the paper's five test tasks [VLP, authors' site]."""


@dataclass(frozen=True)
class DownstreamConfig:
    """Who labels, who learns, on which tasks."""

    out: Path
    """CSV to append to."""
    work: Path = Path("runs/downstream")
    """Folder for data, labels and policies, kept between calls."""
    tasks: tuple[str, ...] = ("paper:test",)
    """Task names, or SPLIT:PART."""
    seeds: Seeds = (0,)
    """Of the data and the pairs; policies have policy_seeds."""
    model: tuple[str, ...] = ()
    """NAME=RUN_FOLDER or NAME=hf-hub:OWNER/NAME: VLPs that label, beside the true return, and have not seen the tasks."""
    baseline: tuple[str, ...] = ()
    """NAME=KIND:ENCODER: baselines that label (docs/vlp.md), such as cosine=cosine:contrastive:FOLDER; not goal-image.  Or
    NAME=better-cluster, hand-displacement or motion-share, which see no picture."""
    policies: Names = POLICIES
    """bc, piql, ipl, cpl, cpl_kl, dpo; bc reads no label."""
    soft: bool = False
    """Labels are probabilities instead of 0, 0.5 and 1."""
    set: tuple[str, ...] = ()
    """Settings of `robopref pipeline`, such as piql.steps=4000 or scale=paper; cpl.* counts for cpl_kl and dpo as well."""
    first_goal: FirstGoal = 0
    """Environment seed of the first goal."""
    device: Device = "cpu"
    """Where policies are trained: cpu, or auto, cuda, cuda:1; a GPU gains from networks of the paper's size on."""
    processes: Workers = 2
    summary: bool = False
    """Print what the CSV says, and do nothing."""


@dataclass(frozen=True)
class Labeller:
    """Who labels: the true return, a VLP, or a baseline with what it looks through."""

    kind: str
    where: str = ""

    def settings(self, annotation: AnnotateConfig) -> AnnotateConfig:
        """The annotation by this labeller."""
        chosen: Any = {"labeller": self.kind, "model": (Path(self.where),) if self.kind == "vlp" else ()}
        if self.kind in BASELINES:
            chosen["baseline"] = replace(annotation.baseline, encoder=self.where)
        return replace(annotation, **chosen)

    def weights(self) -> dict[str, Path]:
        """The files that its labels depend on."""
        return {"model": Path(self.where) / WEIGHTS} if self.kind == "vlp" else files(self.kind, BaselineConfig(self.where))


@dataclass(frozen=True)
class Cell:
    """One labeller, one policy, one task and data seed."""

    task: str
    seed: int
    labeller: str
    policy: str


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(DownstreamConfig, argv, "python -m robopref.policies.downstream", __doc__)
    if not config.summary:
        run(config)
    print(summary(read_rows(config.out)))


def run(config: DownstreamConfig) -> None:
    """Do what is missing in the CSV; RoboprefError when it holds the same cells with other settings."""
    for name in config.policies:
        if name not in POLICIES:
            raise RoboprefError(f"--policies {name}: one of {', '.join(POLICIES)}.{nearest(name, POLICIES)}")
    names, jobs = expand_tasks(config.tasks), []
    labellers = read_labellers(config, names)
    done = read_rows(config.out)
    known = {tuple(row[:-1]): row[-1] for row in done[[*CELL, "settings"]].itertuples(index=False)}
    for seed, task, policy in product(config.seeds, names, config.policies):
        for labeller in (NONE,) if policy == "bc" else labellers:
            cell = Cell(task, seed, labeller, policy)
            made_with = fingerprint(config, cell, labellers)
            before = known.get((task, seed, label_kind(config, cell), labeller, policy))
            if before is None:
                jobs.append((config, cell, made_with))
            elif before != made_with:
                raise RoboprefError(
                    f"{config.out}: {policy} from labels of {labeller} on {task} was made with other settings or another model; "
                    "choose another --out, or give the settings it was made with"
                )
    for seed in config.seeds:
        missing = tuple(sorted({cell.task for _, cell, _ in jobs if cell.seed == seed}))
        collect_offline(settings_of(config, seed), data_folder(config, seed), missing, config.processes)
    labelled = {(cell.task, cell.seed, cell.labeller): cell for _, cell, _ in jobs if cell.labeller != NONE}
    for path in in_processes(label, [(config, cell, labellers[cell.labeller]) for cell in labelled.values()], config.processes):
        print(path, flush=True)
    for rows in in_processes(run_cell, jobs, config.processes):
        done = append_rows(config.out, done, rows, KEY)
        row, success = rows[0], float(np.mean([row["success"] for row in rows]))
        print(f"{row['task']}, {row['labeller']}, {row['policy']}: {success:.2f}  ({row['seconds']:.0f} s)", flush=True)


def read_labellers(config: DownstreamConfig, tasks: tuple[str, ...]) -> dict[str, Labeller]:
    """NAME -> who that is; RoboprefError for what is not NAME=..., a name twice, no model, or one that has seen a task."""
    labellers = {SCRIPTED: Labeller("scripted")}
    for flag, form, given in (("model", "RUN_FOLDER", config.model), ("baseline", "KIND:ENCODER", config.baseline)):
        for word in given:
            name, _, reference = word.partition("=")
            if not name or not reference or name in (*labellers, NONE):
                raise RoboprefError(f"--{flag} {word}: write NAME={form}, each NAME once, and not {SCRIPTED} or {NONE}")
            labellers[name] = find_vlp(word, reference) if flag == "model" else find_baseline(word, reference)
            seen = set(tasks_seen(labellers[name])) & set(tasks)
            if seen:
                raise RoboprefError(
                    f"--{flag} {word}: it was trained on {', '.join(sorted(seen))}; train one without, or leave these tasks out"
                )
    return labellers


def find_vlp(word: str, reference: str) -> Labeller:
    """The VLP that `--model word` names."""
    folder = find_model(reference, "vlp")
    if not (folder / WEIGHTS).exists():
        raise RoboprefError(f"--model {word}: no model in {folder}; name a folder that `robopref train-vlp` wrote")
    return Labeller("vlp", str(folder))


def find_baseline(word: str, reference: str) -> Labeller:
    """The baseline that `--baseline word` names."""
    if reference in WITHOUT_PIXELS:
        return Labeller(reference)
    kind, _, encoder = reference.partition(":")
    kinds = [name for name in BASELINES if name != "goal-image"]  # its picture would have to be one of each task
    if kind not in kinds:
        raise RoboprefError(
            f"--baseline {word}: write NAME=KIND:ENCODER with {', '.join(kinds)}, or NAME=KIND with {', '.join(WITHOUT_PIXELS)}."
            f"{nearest(kind, [*kinds, *WITHOUT_PIXELS])}"
        )
    if lack := lacking(kind, BaselineConfig(encoder), ChatConfig()):
        raise RoboprefError(f"--baseline {word}: {lack}")
    return Labeller(kind, encoder)


def tasks_seen(labeller: Labeller) -> tuple[str, ...]:
    """The tasks that a labeller of ours has learnt from; none of weights that others made."""
    kind, _, folder = labeller.where.partition(":")
    where = labeller.where if labeller.kind == "vlp" else folder if kind == "contrastive" else ""
    if not where:
        return ()
    path = Path(where) / SETTINGS
    with as_written(path, "train it again"):
        return expand_tasks(read_json(path)["config"].get("tasks", ()))


def read_rows(path: Path) -> pd.DataFrame:
    """The CSV so far, empty when there is none; RoboprefError when it is another kind of table."""
    if not path.exists():
        return pd.DataFrame(columns=[*KEY, "success", "settings"])
    table = read_named(path)  # "none" is a labeller
    missing = {*KEY, "success", "settings"} - set(table.columns)
    if missing:
        raise RoboprefError(f"{path}: it has no column {', '.join(sorted(missing))}; it is of another command, name another file")
    return table


@cache
def settings_of(config: DownstreamConfig, seed: int) -> PipelineConfig:
    """The pipeline's settings at the quick scale, the protocol's numbers, then --set."""
    return pipeline_settings([f"seed={seed}", *PROTOCOL, f"annotate.hard={not config.soft}", *config.set])


def policy_settings(settings: PipelineConfig, name: str) -> PolicyConfig:
    """The settings of a policy; CPL-KL and DPO differ from CPL as they do in the paper's files (configs/policy)."""
    if name in ("cpl_kl", "dpo"):
        bias = 1.0 if name == "dpo" else 0.75
        return replace(settings.cpl, reference=True, alpha=2 * settings.cpl.alpha, bias=bias)
    policy: PolicyConfig = getattr(settings, name)
    return policy


def label_kind(config: DownstreamConfig, cell: Cell) -> str:
    """What the column `labels` says."""
    return NONE if cell.labeller == NONE else "soft" if config.soft else "hard"


def fingerprint(config: DownstreamConfig, cell: Cell, labellers: Mapping[str, Labeller]) -> str:
    """A short name for everything that decides a cell's rows and is not in its key."""
    settings = settings_of(config, cell.seed)
    policy = policy_settings(settings, cell.policy)
    decides: list[Any] = [policy, settings.offline, settings.policy_seeds, settings.goals, settings.max_steps, config.first_goal]
    if cell.labeller != NONE:
        labeller = labellers[cell.labeller]
        decides.append(replace(settings.annotate, threads=1))
        decides += [labeller.kind, *(digest(path) for path in labeller.weights().values())]
    return short_name(decides)


def data_folder(config: DownstreamConfig, seed: int) -> Path:
    """Offline data of a seed, a folder a task in it."""
    return config.work / f"data-{seed}"


def labels_file(config: DownstreamConfig, cell: Cell) -> Path:
    """Labels of a task, seed and labeller; all policies learn from the same file."""
    return config.work / f"labels-{cell.seed}" / label_kind(config, cell) / cell.labeller / f"{cell.task}.parquet"


def label(config: DownstreamConfig, cell: Cell, labeller: Labeller) -> Path:
    """Label the task's pairs, unless they are."""
    annotation = labeller.settings(settings_of(config, cell.seed).annotate)
    data = data_folder(config, cell.seed) / cell.task
    return annotate.run(replace(annotation, episodes=data, out=labels_file(config, cell), seed=cell.seed, threads=1))


def run_cell(config: DownstreamConfig, cell: Cell, made_with: str) -> list[dict[str, Any]]:
    """Train and judge one policy with all its seeds: their rows."""
    started = time.time()
    settings = settings_of(config, cell.seed)
    policy = policy_settings(settings, cell.policy)
    labels, measured = None, dict.fromkeys(MEASURES)  # of labels that nobody reads
    if cell.labeller != NONE:
        labels = labels_file(config, cell)
        agreement = read_json(path := side_folder(labels) / AGREEMENT)
        with as_written(path, "label again, with --overwrite"):
            measured = {key: agreement.get(key) for key in MEASURES}  # cluster_accuracy: only where pairs are across clusters
    out = config.work / f"policies-{cell.seed}" / cell.task / label_kind(config, cell) / cell.labeller / cell.policy
    train_policy(settings, policy, data_folder(config, cell.seed) / cell.task, labels, out, config.device)
    success = evaluate_policy(settings, cell.task, out, config.first_goal).groupby("member")["success"].mean()
    which = {
        "task": cell.task,
        "seed": cell.seed,
        "labels": label_kind(config, cell),
        "labeller": cell.labeller,
        "policy": cell.policy,
    }
    sizes = {
        "pairs": 0 if labels is None else settings.annotate.pairs,
        "episodes": settings.offline.episodes * len(settings.offline.levels),
        "updates": sum(getattr(policy, part, 0) for part in ("steps", "reward_steps", "clone_steps")),
        "hidden": "x".join(map(str, policy.hidden)),
        "seconds": time.time() - started,  # of all policy seeds together
        "settings": made_with,
    }
    return [
        which | {"policy_seed": seed, "success": success[member], "goals": settings.goals} | measured | sizes
        for member, seed in enumerate(settings.policy_seeds)
    ]


def summary(rows: pd.DataFrame) -> str:
    """How good each labeller's labels are, what each policy makes of them, and which of the paper's numbers that reaches.

    Success in %, over tasks and seeds.  The unit of its spread is the data seed, with data, pairs and VLP of its own: policy
    seeds, which share them, and the tasks, which stay the same, are averaged inside it.
    """
    if rows.empty:
        return "no rows yet"
    heads = f"{'accuracy':>9}{'constant label':>16}{'better cluster':>16}{'balanced':>10}{'Kendall tau':>13}{'tasks':>7}"
    lines = [f"{'labels':8}{'labeller':16}{heads}"]
    labelled = rows[rows["labeller"] != NONE].drop_duplicates(["labels", "labeller", "task", "seed"])
    for (kind, labeller), part in labelled.groupby(["labels", "labeller"]):
        accuracy, constant, cluster, balanced, tau = (part[measure].mean() for measure in MEASURES)
        numbers = f"{accuracy:9.3f}{constant:16.3f}{cluster:16.3f}{balanced:10.3f}{tau:13.3f}"
        lines.append(f"{kind:8}{labeller:16}{numbers}{part['task'].nunique():7}")
    spread = f"{'spread over data seeds':>30}"
    head = f"{'mean':>6}{'iqm':>6}{spread}{'tasks':>7}{'data seeds':>12}{'policy seeds':>14}"
    lines.append(f"\n{'labels':8}{'labeller':16}{'policy':8}{head}")
    results: dict[tuple[str, str, str], pd.DataFrame] = {}
    for (kind, labeller, policy), part in rows.groupby(["labels", "labeller", "policy"]):
        x = 100 * part.pivot(index=["seed", "policy_seed"], columns="task", values="success").dropna()
        if x.empty:
            lines.append(f"{kind:8}{labeller:16}{policy:8}  no seed has all its tasks yet")
            continue
        results[kind, labeller, policy] = x
        units = by_data_seed(x)
        found = over_seeds(units.to_numpy(), np.mean)
        numbers = f"{found.centre:6.1f}{iqm(units.to_numpy()):6.1f}{found.said():>30}"
        lines.append(f"{kind:8}{labeller:16}{policy:8}{numbers}{x.shape[1]:7}{len(units):12}{len(x) // len(units):14}")
    return "\n".join([*lines, "", *verdicts(results)]).rstrip()


def by_data_seed(x: pd.DataFrame) -> pd.Series:
    """Success by data seed: the mean over policy seeds and tasks, of x: a row a data and policy seed, a column a task."""
    return x.groupby(level="seed").mean().mean(axis=1)


def verdicts(results: Mapping[tuple[str, str, str], pd.DataFrame]) -> list[str]:
    """A line a target: whether a labeller reaches it, where all five test tasks have been run.

    results: (labels, labeller, policy) -> success in %, a row a data and policy seed, a column a task.  Scripted labels are
    averaged over the same seeds and tasks as the labeller's, and their difference is paired by data seed: data and pairs are the
    same.
    """
    lines = []
    for (kind, labeller, policy), x in results.items():
        if labeller in (NONE, SCRIPTED) or policy not in TARGETS:
            continue
        mean, targets, told = float(x.to_numpy().mean()), {"VLP's paper": TARGETS[policy]}, {}
        scripted = results.get((kind, SCRIPTED, policy))
        if scripted is not None and x.index.isin(scripted.index).all() and x.columns.isin(scripted.columns).all():
            same = scripted.loc[x.index, x.columns]
            targets["not below scripted labels"] = float(same.to_numpy().mean())
            if len(units := by_data_seed(x)) > 1:
                less = difference(units.to_numpy(), by_data_seed(same).to_numpy(), np.mean, paired=True)
                what = f"difference {less.text(sign='+')}, {less.kind} over {less.units} data seeds, {verdict(less, unit='sets')}"
                told["not below scripted labels"] = f"; {what}"
        for what, target in targets.items():
            reached = "reached" if mean >= target else "missed"
            if set(x.columns) != set(SPLITS["paper"].test):
                reached = "open: these are not the paper's test tasks"
            lines.append(
                f"{kind} labels of {labeller}, {policy}: {mean:.1f} of {target:.1f} ({what}): {reached}{told.get(what, '')}"
            )
    return lines


if __name__ == "__main__":
    from robopref.policies import downstream  # by its own name: in __main__, worker processes would not find what is cached

    sys.exit(guarded(lambda: downstream.main(sys.argv[1:])))
