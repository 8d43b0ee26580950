"""`python -m robopref.preference.compare TABLE.csv`: VLP and its references on unseen tasks, wording by wording.

Comes after training: VLPs, baselines (docs/vlp.md), frame banks of train and test tasks and, for the measures of labels, the
test tasks' offline data.  A row of the table is a model, seed, task and kind of wording.  Rows are appended a task at a time; a
second call does what is missing, and `--summary` holds the table against the paper's.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from robopref.configs.chat import ChatConfig
from robopref.configs.cli import guarded
from robopref.configs.compare import CompareConfig
from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.files import MANIFEST, atomic_file, read_record
from robopref.configs.flags import from_flags
from robopref.configs.rows import read_named
from robopref.embodied.tasks import KINDS, instructions
from robopref.preference.agreement import agreement
from robopref.preference.baselines.load import BASELINES, lacking
from robopref.preference.generalisation import order_measures
from robopref.preference.hub import find_model
from robopref.preference.judges import CLUSTER_BIT, WITHOUT_PIXELS, Data, Entry, Judge
from robopref.preference.targets import summarise

KEY = ["model", "seed", "task", "wording"]
MADE_FROM = "made_from"  # the column that says from which weights, banks and settings a row is


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(CompareConfig, argv, "python -m robopref.preference.compare", __doc__)
    table = run(config)
    if config.summary:
        print(summarise(table))


def run(config: CompareConfig) -> pd.DataFrame:
    """Append the rows that are missing, a task at a time; the whole table."""
    torch.set_num_threads(config.threads)
    table = read_table(config.table) if config.table.exists() else pd.DataFrame(columns=[*KEY, MADE_FROM])
    data = Data(config)
    for entry in list_entries(config):
        made_from = {name: data.identity(entry, name) for name in data.tasks}
        known = table[(table["model"] == entry.name) & (table["seed"] == entry.seed)]
        for name, written in known.groupby("task")[MADE_FROM].first().items():
            if made_from.get(name, written) != written:
                raise RoboprefError(
                    f"{config.table}: {entry.name}, seed {entry.seed} was measured on {name} with other weights, banks or "
                    "settings, or by an older edition of this command; delete its rows, or choose another name or table"
                )
        missing = [name for name in data.tasks if name not in set(known["task"])]
        if not missing:
            continue
        judge = data.judge(entry)
        for name in missing:
            rows = measure(entry, judge, data, name, made_from[name])
            table = rows if table.empty else pd.concat([table, rows], ignore_index=True)
            with atomic_file(config.table) as aside:
                table.to_csv(aside, index=False, float_format="%.4f", lineterminator="\n")
            print(f"{entry.name}, seed {entry.seed}, {name}: {KINDS[0]} {brief(rows.iloc[0])}", flush=True)
    if table.empty:
        raise UsageError(f"{config.table} is empty, and neither --model NAME=RUN nor --baseline NAME=KIND:ENCODER was given")
    return read_table(config.table)  # the rounded numbers, whether they are of this call or of one before


def read_table(path: Path) -> pd.DataFrame:
    """A table that `run` wrote; RoboprefError for any other file."""
    table = read_named(path)
    missing = {*KEY, "kind", MADE_FROM} - set(table)
    if missing:
        raise RoboprefError(f"{path}: no column {', '.join(sorted(missing))}, so it is not from here; choose another table")
    return table


def list_entries(config: CompareConfig) -> list[Entry]:
    """The models and baselines asked for; UsageError for one that is mistyped, lacks something or comes twice."""
    entries = []
    for said in config.model:
        name, where = _split(said, "model", "RUN_FOLDER")
        folder = find_model(where, "vlp")
        entries.append(Entry(name, seed_of(folder), "vlp", str(folder)))
    for said in config.baseline:
        name, what = _split(said, "baseline", "KIND:ENCODER")
        kind, _, where = what.partition(":")
        kinds = (*WITHOUT_PIXELS, *BASELINES)
        if kind not in kinds or (kind in BASELINES) != bool(where):
            raise UsageError(f"--baseline {said}: write NAME=KIND:ENCODER with {', '.join(kinds)}.{nearest(kind, kinds)}")
        if kind == "scripted" and config.episodes is None:
            raise UsageError(f"--baseline {said} needs --episodes FOLDER, which holds the true rewards")
        if kind == CLUSTER_BIT and config.offline is None:
            raise UsageError(f"--baseline {said} needs --offline FOLDER: it labels segments and orders no whole episode")
        # A goal picture comes from the banks.
        lack = lacking(kind, replace(config.settings, encoder=where, goal=config.clips), ChatConfig())
        if lack:
            raise UsageError(f"--baseline {said}: {lack}")
        encoder, _, folder_name = where.partition(":")
        trained = encoder in ("contrastive", "small")
        entries.append(Entry(name, seed_of(Path(folder_name)) if trained else 0, kind, where))
    names = [(entry.name, entry.seed) for entry in entries]
    twice = next((pair for pair in names if names.count(pair) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice[0]} comes twice with seed {twice[1]}: give them different names")
    return entries


def _split(said: str, flag: str, form: str) -> tuple[str, str]:
    name, _, value = said.partition("=")
    if not name or not value:
        raise UsageError(f"--{flag} {said}: write NAME={form}")
    return name, value


def seed_of(folder: Path) -> int:
    """The seed in a run's manifest; 0 where there is none, as in a shared model."""
    return int(read_record(folder / MANIFEST)["seeds"][0]) if (folder / MANIFEST).exists() else 0


def measure(entry: Entry, judge: Judge, data: Data, task: str, made_from: str) -> pd.DataFrame:
    """The rows of one entry on one task, a kind of wording each."""
    config, rows = data.config, []
    for wording in KINDS:
        row: dict[str, object] = dict(zip(KEY, (entry.name, entry.seed, task, wording), strict=True)) | {"kind": entry.kind}
        if config.offline is not None:
            _, pairs, returns, clusters = data.pairs(task)
            # The plainest sentence of its kind, as annotation would be asked.
            scores = judge.segments(task, instructions(task, wording)[0])
            preference, truth = (values[pairs[:, 1]] - values[pairs[:, 0]] for values in (scores, returns))
            row |= agreement(preference, truth, clusters[pairs])
        if judge.orders is not None:
            row |= order_measures(
                judge.orders, data.bank.index, task, data.others, part=wording, tuples=config.tuples, seed=config.seed
            )
        row["tuples"] = config.tuples
        rows.append(row | {MADE_FROM: made_from})
    return pd.DataFrame(rows)


def brief(row: pd.Series) -> str:
    """The measures of one row in a few words."""
    names = [name for name in ("clear_balanced_accuracy", "over_cluster", "ivp_accuracy", "itp_accuracy") if name in row]
    return ", ".join(f"{name} {row[name]:.3f}" for name in names)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
