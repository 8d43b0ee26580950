"""`robopref unseen`: how well VLP orders and labels tasks that it never saw, from nothing to the table.

    collect -> pretrain and train-vlp, seed by seed -> compare

`experiment=vlp_paper` has the paper's split, `experiment=vlp_ml45` Meta-World's own.  Each stage keeps what it has finished, so
a killed command goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from robopref.configs.compare import CompareConfig
from robopref.configs.errors import UsageError, nearest
from robopref.configs.files import plain
from robopref.configs.hydra import to_dataclass
from robopref.configs.memory import PeakMemory
from robopref.configs.parallel import in_processes
from robopref.configs.run import write_manifest
from robopref.configs.run_folder import run_folder
from robopref.configs.unseen import UnseenConfig
from robopref.configs.vlp import TrainVLPConfig
from robopref.datasets import collect
from robopref.embodied.tasks import SPLITS
from robopref.preference import compare, pretrain, train
from robopref.preference.backbone import parse_small
from robopref.preference.baselines import train as contrastive
from robopref.preference.judges import WITHOUT_PIXELS
from robopref.preference.targets import summarise

TABLE = "table.csv"


def main(config: UnseenConfig) -> None:
    """`robopref unseen`."""
    run(config)


def counted(config: UnseenConfig) -> str:
    """What trainings side by side are called where they are counted; one after the other each shows its own progress."""
    return "trainings:" if config.processes > 1 else ""


def run(config: UnseenConfig) -> Path:
    """Run every stage; return the table.  Prints what each took, the table's summary, and time and memory of it all."""
    started = time.time()
    unknown = [name for name in config.only if name not in config.variants]
    if unknown:
        raise UsageError(f"only: there is no variant {unknown[0]!r}.{nearest(unknown[0], config.variants)}")
    variants = {name: variant(config.vlp, name, config.variants[name]) for name in config.only or config.variants}
    folder = run_folder(config.out, "unseen", config, {}, overwrite=config.overwrite, shared=not config.overwrite, writes=[TABLE])
    with folder as complete:
        if not complete:
            return make_table(config, variants, started)
    table = config.out / TABLE
    print(summarise(compare.read_table(table)))
    print(f"{table.resolve()}: already done", flush=True)
    return table


def make_table(config: UnseenConfig, variants: dict[str, TrainVLPConfig], started: float) -> Path:
    """The table of the variants, from what is not there yet on."""
    stages: tuple[Callable[[], object], ...] = (
        lambda: collect_all(config),
        lambda: learn_all(config, variants),
        lambda: measure(config, tuple(variants)),
    )
    with PeakMemory() as memory:
        for name, stage in zip(("collect", "learn", "measure"), stages, strict=True):
            clock = time.time()
            print(f"{name} ...", flush=True)
            stage()
            print(f"      {time.time() - clock:.0f} s", flush=True)
    table = config.out / TABLE
    write_manifest(config.out, "unseen", config, {}, config.seeds[0], started, outputs=[table.name])
    print(summarise(compare.read_table(table)))
    took = f"{time.time() - started:.0f} s, {memory.mb:.0f} MB at most, {config.processes} processes"
    print(f"{table.resolve()}: {took}", flush=True)
    return table


def variant(base: TrainVLPConfig, name: str, overrides: list[str]) -> TrainVLPConfig:
    """`base` with the `key=value` overrides of a variant; UsageError for a key or value that does not fit."""
    if "/" in name or not name:
        raise UsageError(f"variants: {name!r} names a folder, so it can be neither empty nor hold a slash")
    settings = OmegaConf.to_container(OmegaConf.merge(plain(base), OmegaConf.from_dotlist(list(overrides))))
    assert isinstance(settings, dict)
    return to_dataclass(TrainVLPConfig, {str(key): value for key, value in settings.items()})


def collect_all(config: UnseenConfig) -> None:
    """Episodes and frames of all tasks, and the test tasks' offline data."""
    split, seed = SPLITS[config.split], config.seeds[0]
    shared = replace(config.collect, processes=config.processes, out=config.out / "episodes", clips=config.out / "clips")
    collect.run(replace(shared, tasks=(*split.train, *split.test), seed=seed))
    # Another seed: the offline data must not share an episode with those that ITP and IVP are measured on.
    own = replace(config.offline, processes=config.processes, out=config.out / "offline", clips=None)
    collect.run(replace(own, tasks=split.test, seed=seed + 1))


def learn_all(config: UnseenConfig, variants: dict[str, TrainVLPConfig]) -> None:
    """Backbones, VLPs and contrastive models of every seed, from the train tasks alone: a process a model, one thread each."""
    threads = 2 if config.processes == 1 else 1  # not by how many seeds: adding one must not undo the others
    shared: dict[str, Any] = {"clips": config.out / "clips", "tasks": SPLITS[config.split].train, "threads": threads}
    backbones = {seed: config.out / f"backbone-{seed}" for seed in config.seeds}
    jobs = [(replace(config.pretrain, out=out, seed=seed, **shared),) for seed, out in backbones.items()]
    for _ in in_processes(pretrain.run, jobs, config.processes, counted(config)):
        pass
    # Seed by seed within a model: what a backbone sees is then in the cache when its second model begins.
    shared["features"] = config.out / "features"
    trainings: list[tuple[Callable[[Any], object], Any]] = []
    for name, settings in variants.items():
        _, words = parse_small(settings.backbone.removeprefix("small:"))
        for seed, backbone in backbones.items():
            looks = f"small:{backbone}" + (f"@{words}" if words else "")
            out = config.out / f"{name}-{seed}"
            trainings.append((train.run, replace(settings, out=out, backbone=looks, seed=seed, **shared)))
    for sees, out in spaces(config).items():
        for seed, backbone in backbones.items():
            space = replace(config.contrastive, sees=sees, out=out, backbone=f"small:{backbone}", seeds=(seed,), **shared)
            trainings.append((contrastive.run, space))
    for _ in in_processes(call, trainings, config.processes, counted(config)):
        pass


def call(function: Callable[[Any], object], argument: Any) -> None:
    """`function(argument)`, its result left in the process."""
    function(argument)


def spaces(config: UnseenConfig) -> dict[Literal["frame", "clip"], Path]:
    """Folders of the contrastive models of single frames and of clips, a model a seed."""
    return {"frame": config.out / "contrastive-frame", "clip": config.out / "contrastive-clip"}


def baselines(config: UnseenConfig) -> tuple[str, ...]:
    """The labellers without VLP, as `compare` wants them."""
    of_frames, of_clips = spaces(config).values()
    named = [f"{kind}={kind}" for kind in WITHOUT_PIXELS]
    for seed in config.seeds:
        named += [
            f"goal-image=goal-image:small:{config.out / f'backbone-{seed}'}",
            # Named for what they are: our small model, not CLIP or S3D, which the papers' labellers look through.
            f"contrastive (cosine)=cosine:contrastive:{of_frames / f'seed-{seed}'}",
            f"contrastive (goal-baseline regularisation)=vlm-rm:contrastive:{of_frames / f'seed-{seed}'}",
            f"contrastive clips=roboclip:contrastive:{of_clips / f'seed-{seed}'}",
        ]
    return tuple(named)


def measure(config: UnseenConfig, names: tuple[str, ...]) -> None:
    """The rows of every VLP and of the baselines."""
    split = SPLITS[config.split]
    compare.run(
        CompareConfig(
            table=config.out / TABLE,
            model=tuple(f"{name}={config.out / f'{name}-{seed}'}" for name in names for seed in config.seeds),
            baseline=baselines(config),
            clips=config.out / "clips",
            tasks=split.test,
            others=split.train,
            episodes=config.out / "episodes",
            offline=config.out / "offline",
            tuples=config.tuples,
            pairs=config.pairs,
            work=config.out,  # whose features/ the trainings have filled
            threads=2,
        )
    )
