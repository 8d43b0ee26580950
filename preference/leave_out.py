"""`python -m robopref.preference.leave_out VARIANTS.yaml --out results.csv`: VLP settings compared on train tasks left out.

The only place where settings of VLP may be chosen: test tasks must not be looked at.  For every variant and seed a backbone
and a VLP learn from the remaining train tasks; each task left out then gives a row: its episodes' order (ITP, IVP, ILP) and
the labels of 50-step segments of its offline data against the true return.  A second call does what is missing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro
import yaml

from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file, plain
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.parallel import in_processes
from robopref.configs.pipeline import PipelineConfig
from robopref.datasets import collect
from robopref.datasets.clips import FrameBank, render_clips
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.envs import make_env
from robopref.embodied.render import Renderer
from robopref.embodied.tasks import SPLITS, canonical, expand_tasks
from robopref.preference import pretrain, train
from robopref.preference.agreement import agreement
from robopref.preference.generalisation import generalisation
from robopref.preference.pairs import choose_segments
from robopref.preference.scoring import true_returns
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
    seeds: tuple[int, ...] = (0, 1)
    only: tuple[str, ...] = ()
    """Variants to run, by name; default: all."""
    processes: int = 2


def main(argv: list[str]) -> None:
    """Command line."""
    config = tyro.cli(LeaveOutConfig, args=argv, prog="python -m robopref.preference.leave_out", description=__doc__)
    variants = read_variants(config.variants)
    forbidden = set(SPLITS["paper"].test) & set(expand_tasks(config.tasks))
    if forbidden:
        raise RoboprefError(f"--tasks {', '.join(sorted(forbidden))}: a test task of the paper, and settings are chosen here")
    done = pd.read_csv(config.out) if config.out.exists() else pd.DataFrame(columns=KEY)
    finished = set(done[KEY[:2]].itertuples(index=False, name=None))
    jobs = [
        (config, seed, name, settings_of(variants[name], seed))
        for name in config.only or variants
        for seed in config.seeds
        if (name, seed) not in finished
    ]
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
    print(done.groupby("variant", sort=False).apply(means, include_groups=False).to_string(float_format="%.3f"))


def means(rows: pd.DataFrame) -> pd.Series:
    """What the table shows of a variant: averages over tasks and seeds, and the share of tasks ordered the wrong way round."""
    columns = ["balanced_accuracy", "auc", "kendall_tau", "itp_accuracy", "ivp_accuracy", "ilp_loss"]
    return pd.concat([rows[columns].mean(), pd.Series({"reversed": (rows["auc"] < 0.5).mean()})]).round(3)


def read_variants(path: Path) -> dict[str, list[str]]:
    """The variants file, checked; RoboprefError naming it otherwise."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RoboprefError(f"{path}: not a readable variants file ({error})") from error
    if not isinstance(read, Mapping) or not all(isinstance(overrides, list) for overrides in read.values()):
        raise RoboprefError(f"{path}: write NAME: [vlp.steps=300, pretrain.width=32], a line a variant")
    return dict(read)


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
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()[:8]


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
        pixels, pairs, returns = offline_clips(config, seed, settings, name, scorer)
        scores = scorer.score(pixels, [canonical(name)] * len(pixels))
        preference, truth = (values[pairs[:, 1]] - values[pairs[:, 0]] for values in (scores, returns))
        rows.append(dict(zip(KEY, (variant, seed, name), strict=True)) | agreement(preference, truth) | ordered)
    return pd.DataFrame(rows)


def offline_clips(
    config: LeaveOutConfig, seed: int, settings: PipelineConfig, name: str, scorer: VLPScorer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips (N, 1 + T, H, W, 3), pairs (P, 2) and true returns (N,) of a task's offline data; drawn once for all variants."""
    store = EpisodeStore(config.work / f"offline-{seed}" / name)
    segments, pairs, _ = choose_segments(replace(settings.annotate, seed=seed), store, np.random.default_rng(seed))
    path = config.work / f"offline-{seed}" / f"{name}-{key_of([settings.annotate, scorer.frame_size, scorer.camera])}.npy"
    if not path.exists():
        with closing(make_env(store.env_id)) as env, Renderer(env, scorer.frame_size, scorer.camera) as renderer:
            drawn = np.stack(list(render_clips(store, segments, renderer, scorer.frames)))
        with atomic_file(path) as temp:
            np.save(temp, drawn)
    return np.load(path), pairs, true_returns(store, segments)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
