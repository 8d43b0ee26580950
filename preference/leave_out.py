"""`python -m robopref.preference.leave_out VARIANTS.yaml --out results.csv`: VLP settings compared on train tasks left out.

The only place where settings of VLP may be chosen: test tasks must not be looked at.  For every variant and seed a backbone
and a VLP learn from the remaining train tasks; each task left out then gives a row: its episodes' order (ITP, IVP, ILP) and
the labels of 50-step segments of its offline data against the true return; beside them what the better cluster (over_cluster)
and how the hand moved (preference/baselines/motion.py) are worth on the same pairs and orders.  A second call does what is
missing, and refuses rows that other settings made; `--summary` only reads.
"""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro

from robopref.configs.arrays import read_array, sign
from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError
from robopref.configs.files import NO_MATTER, atomic_file, is_words, read_yaml
from robopref.configs.flags import from_flags
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.parallel import in_processes
from robopref.configs.pipeline import PipelineConfig
from robopref.configs.ranges import Seeds, Workers
from robopref.configs.rows import fingerprint, read_rows, to_do
from robopref.datasets import collect
from robopref.datasets.clips import FrameBank, render_clips
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.envs import make_env
from robopref.embodied.render import Renderer
from robopref.embodied.tasks import SPLITS, canonical, expand_tasks
from robopref.preference import pretrain, train
from robopref.preference.agreement import agreement
from robopref.preference.baselines.motion import MOTIONS
from robopref.preference.generalisation import generalisation, motion_scores, order_measures
from robopref.preference.pairs import ChosenSegments, choose_segments
from robopref.preference.scoring import hand_positions, true_returns
from robopref.preference.vlp import VLPScorer

KEY = ["variant", "seed", "task"]


@dataclass(frozen=True)
class LeaveOutConfig:
    """Which settings are compared, without which tasks."""

    variants: Annotated[Path, tyro.conf.Positional]
    """YAML: name -> [overrides of `robopref pipeline`, of its groups collect, pretrain and vlp]."""
    out: Path
    """CSV to append to."""
    tasks: tuple[str, ...]
    """Left out of training and measured; train tasks of the paper's split."""
    without: tuple[str, ...] = ()
    """Left out of training and not looked at: what results will be reported on."""
    work: Path = Path("runs/leave-out")
    """Folder for data and models, kept between calls."""
    seeds: Seeds = (0, 1)
    only: tuple[str, ...] = ()
    """Variants to run, by name; default: all."""
    processes: Workers = 2
    summary: bool = False
    """Print what the CSV says, and do nothing."""


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(LeaveOutConfig, argv, "python -m robopref.preference.leave_out", __doc__)
    done = read_rows(config.out, KEY)
    if not config.summary:
        done = run(config, done)
    if done.empty:
        print("no rows yet")
        return
    print(done.groupby("variant", sort=False).apply(means, include_groups=False).to_string(float_format="%.3f"))


def run(config: LeaveOutConfig, done: pd.DataFrame) -> pd.DataFrame:
    """The table, after doing what is missing in it; RoboprefError when it holds the same variants with other settings."""
    variants = read_variants(config.variants)
    forbidden = set(SPLITS["paper"].test) & set(expand_tasks(config.tasks))
    if forbidden:
        raise RoboprefError(f"--tasks {', '.join(sorted(forbidden))}: a test task of the paper, and settings are chosen here")
    asked = {(name, seed): settings_of(variants[name], seed) for name in config.only or variants for seed in config.seeds}
    marks = {key: made_with(config, settings) for key, settings in asked.items()}
    jobs = [(config, seed, name, asked[name, seed]) for name, seed in to_do(config.out, done, KEY[:2], marks)]
    for _, seed, _, settings in jobs:
        collect_all(config, seed, settings)
    backbones = {backbone_folder(config, seed, settings): (config, seed, settings) for _, seed, _, settings in jobs}
    for _ in in_processes(train_backbone, list(backbones.values()), config.processes):
        pass
    for rows in in_processes(run_one, jobs, config.processes):
        done = pd.concat([done, rows], ignore_index=True)
        with atomic_file(config.out) as temp:
            done.to_csv(temp, index=False, float_format="%.4f", lineterminator="\n")
        print(f"{rows['variant'].iloc[0]}, seed {rows['seed'].iloc[0]}: {means(rows).to_dict()}", flush=True)
    return done


def means(rows: pd.DataFrame) -> pd.Series:
    """What the table shows of a variant: averages over tasks and seeds, and the share of tasks ordered the wrong way round."""
    measures = ("clear_balanced_accuracy", "balanced_accuracy", "over_cluster", "auc", "kendall_tau", "ivp_accuracy")
    of_motions = [f"{motion}_{measure}" for motion in MOTIONS for measure in ("balanced_accuracy", "itp_accuracy")]
    columns = [*measures, "itp_accuracy", "ilp_loss", *of_motions]
    # Older tables lack some of them.
    return pd.concat([rows.reindex(columns=columns).mean(), pd.Series({"reversed": (rows["auc"] < 0.5).mean()})]).round(3)


def read_variants(path: Path) -> dict[str, list[str]]:
    """The variants file, checked; RoboprefError naming it otherwise."""
    form = "write NAME: [vlp.steps=300, pretrain.width=32], a line a variant"
    read = read_yaml(path, form)
    if not isinstance(read, dict) or not all(isinstance(name, str) and is_words(words) for name, words in read.items()):
        raise RoboprefError(f"{path}: {form}")
    return read


def settings_of(overrides: list[str], seed: int) -> PipelineConfig:
    """The pipeline's settings at the quick scale with `overrides`."""
    return to_dataclass(PipelineConfig, compose("pipeline", [f"seed={seed}", *overrides]))


def train_tasks(config: LeaveOutConfig) -> tuple[str, ...]:
    """The paper's train tasks without those left out."""
    out = {*expand_tasks(config.tasks), *expand_tasks(config.without)}
    return tuple(name for name in SPLITS["paper"].train if name not in out)


def data_folder(config: LeaveOutConfig, seed: int, settings: PipelineConfig) -> Path:
    """Where the episodes of these settings are."""
    return config.work / f"data-{seed}-{key_of(settings.collect)}"


def backbone_folder(config: LeaveOutConfig, seed: int, settings: PipelineConfig) -> Path:
    """Where the backbone of these settings is; variants of VLP alone share it."""
    return config.work / f"backbone-{seed}-{key_of(settings.collect)}-{key_of(settings.pretrain)}"


def key_of(settings: Any) -> str:
    """A short name for settings."""
    return fingerprint(settings)


def made_with(config: LeaveOutConfig, settings: PipelineConfig) -> str:
    """A short name for what decides a variant's rows: settings of data, backbone and VLP, and which tasks are left out."""
    parts = (settings.collect, settings.offline, settings.pretrain, settings.vlp, settings.annotate)
    return fingerprint([*parts, sorted(train_tasks(config)), sorted(expand_tasks(config.tasks))], without=NO_MATTER)


def collect_all(config: LeaveOutConfig, seed: int, settings: PipelineConfig) -> None:
    """Episodes and frames of all tasks, and the offline data of those left out, as the pipeline makes them."""
    folder, measured = data_folder(config, seed, settings), expand_tasks(config.tasks)
    names = (*train_tasks(config), *measured)
    shared = replace(settings.collect, processes=config.processes, seed=seed)
    collect.run(replace(shared, out=folder / "episodes", clips=folder / "clips", tasks=names))
    own = replace(settings.offline, processes=config.processes, seed=seed + 1)
    collect.run(replace(own, out=config.work / f"offline-{seed}", clips=None, tasks=measured))


def train_backbone(config: LeaveOutConfig, seed: int, settings: PipelineConfig) -> None:
    """Pre-train one backbone, unless it is there."""
    clips = data_folder(config, seed, settings) / "clips"
    out = backbone_folder(config, seed, settings)
    pretrain.run(replace(settings.pretrain, clips=clips, out=out, tasks=train_tasks(config), seed=seed, threads=1, device="cpu"))


def run_one(config: LeaveOutConfig, seed: int, variant: str, settings: PipelineConfig) -> pd.DataFrame:
    """Train VLP and measure it on every task left out: their rows."""
    clips, others = data_folder(config, seed, settings) / "clips", train_tasks(config)
    out = config.work / f"vlp-{seed}" / variant
    backbone = f"small:{backbone_folder(config, seed, settings)}"
    own = seed + settings.vlp.seed  # vlp.seed=100 in a variant: other weights and tuples on the same data and backbone
    train.run(replace(settings.vlp, clips=clips, out=out, backbone=backbone, tasks=others, seed=own, threads=1, device="cpu"))
    scorer = VLPScorer.load(out)
    rows = []
    for name in expand_tasks(config.tasks):
        bank = FrameBank([clips / other for other in (*others, name)])
        ordered = generalisation(scorer, bank, name, others, out / "features")
        pixels, store, chosen = offline_clips(config, seed, settings, name, scorer)
        scores = scorer.score(pixels, [canonical(name)] * len(pixels))
        labelled = agree(scores, store, chosen)
        for motion, moved in MOTIONS.items():
            labels = agree(moved(*hand_positions(store, chosen.segments)), store, chosen)
            labelled[f"{motion}_balanced_accuracy"] = labels["balanced_accuracy"]
            orders = order_measures(motion_scores(bank, motion), bank.index, name, others)
            labelled[f"{motion}_itp_accuracy"] = orders["itp_accuracy"]
        rows.append(dict(zip(KEY, (variant, seed, name), strict=True)) | labelled | ordered)
    return pd.DataFrame(rows).assign(settings=made_with(config, settings))


def agree(scores: np.ndarray, store: EpisodeStore, chosen: ChosenSegments) -> dict[str, float]:
    """How well scores (N,) of the chosen segments agree with their true returns."""
    first, second = chosen.pairs.T
    returns = true_returns(store, chosen.segments)
    clusters = None if chosen.clusters is None else chosen.clusters[chosen.pairs]
    return agreement(scores[second] - scores[first], returns[second] - returns[first], clusters)


def offline_clips(
    config: LeaveOutConfig, seed: int, settings: PipelineConfig, name: str, scorer: VLPScorer
) -> tuple[np.ndarray, EpisodeStore, ChosenSegments]:
    """Clips (N, 1 + T, H, W, 3) of a task's offline data, which is compared of it; drawn once for all variants."""
    store = EpisodeStore(config.work / f"offline-{seed}" / name)
    chosen = choose_segments(replace(settings.annotate, seed=seed), store, np.random.default_rng(seed))
    path = config.work / f"offline-{seed}" / f"{name}-{key_of([settings.annotate, scorer.frame_size, scorer.camera])}.npy"
    if not path.exists():
        with closing(make_env(store.env_id)) as env, Renderer(env, scorer.frame_size, scorer.camera) as renderer:
            drawn = np.stack(list(render_clips(store, chosen.segments, renderer, scorer.frames)))
        with atomic_file(path) as temp:
            np.save(temp, drawn)
            sign(temp)
    try:
        return read_array(path), store, chosen
    except (OSError, ValueError) as error:
        raise RoboprefError(f"{path}: these clips are damaged ({error}); delete this file and run again") from error


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
