"""Annotation: 1,000 pairs over 200 clips, each clip encoded once, against encoding both clips of every pair anew.

Both sides draw from simulator states and score with the same model in the same run; the plain side is given its
environment, renderer and model for free and is timed on a sample of the pairs, half before and half after, so that a
machine that slows down slows both.  Memory is the peak of a process of its own, with few episodes and with ten times as
many.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.checkpoint import save_model
from robopref.configs.vlp import ModelConfig
from robopref.datasets.clips import FRAMES, Segment
from robopref.datasets.episodes import EpisodeStore, write_episodes
from robopref.datasets.preferences import read_preferences
from robopref.embodied.envs import make_env
from robopref.embodied.experts import uniform
from robopref.embodied.render import DEFAULT_CAMERA
from robopref.embodied.rollout import rollout
from robopref.preference import annotate
from robopref.preference.pairs import choose_segments
from robopref.preference.scoring import open_clips
from robopref.preference.small import SmallBackbone, SmallConfig, SmallEncoder
from robopref.preference.vlp import KIND, VLP, VLPScorer

TASK = "drawer-close"
PAIRS, CLIPS = 1000, 200
SAMPLE = 60  # pairs that the plain side is timed on
FEW, MANY = 12, 120  # episodes of the memory check
THREADS = 1  # two collapse when anything else runs on the machine


def run(model: Path | None = None) -> dict[str, float]:
    """Measure; print a table; return {"ratio", "peak_mb"}.  model: VLP run folder, or None for an untrained one."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model = model or untrained_vlp(folder / "vlp")
        few, many = (record_episodes(folder / f"{count}", count) for count in (FEW, MANY))
        config = AnnotateConfig(
            out=folder / "once.parquet", episodes=many, model=(model,), pairs=PAIRS, clips=CLIPS, threads=THREADS
        )
        plan = plan_pairs(config, many)
        before = time_plainly(model, many, plan[: SAMPLE // 2])
        started = time.perf_counter()
        annotate.run(config)
        once = time.perf_counter() - started
        after = time_plainly(model, many, plan[SAMPLE // 2 : SAMPLE])
        peaks = {count: peak_in_new_process(model, path, folder) for count, path in ((FEW, few), (MANY, many))}

    fast, plain = PAIRS / once, SAMPLE / (before + after)
    table = Table(title=f"Pairs a second, {PAIRS} pairs over {CLIPS} clips of {TASK}")
    for name in ("side", "pairs/s", "seconds", "what was timed"):
        table.add_column(name, justify="left" if name in ("side", "what was timed") else "right")
    table.add_row("each clip encoded once", f"{fast:.1f}", f"{once:.1f}", "everything, start and files included")
    table.add_row("both clips of a pair anew", f"{plain:.1f}", f"{before + after:.1f}", f"{SAMPLE} pairs, without the start")
    Console().print(table)
    print(f"peak memory: {peaks[FEW]:.0f} MB with {FEW} episodes, {peaks[MANY]:.0f} MB with {MANY}")
    return {"ratio": round(fast / plain, 1), "peak_mb": round(peaks[MANY])}


def untrained_vlp(folder: Path) -> Path:
    """A VLP run folder with random weights of the default sizes: as fast as a trained one, and as good as a coin."""
    torch.manual_seed(0)
    SmallBackbone.save(folder / "backbone", SmallEncoder(SmallConfig()))
    backbone = SmallBackbone.load(folder / "backbone")
    vlp = VLP(ModelConfig(), FRAMES, backbone.tokens_per_frame, backbone.image_dim, backbone.text_dim)
    config = {
        "model": asdict(vlp.config),
        "shape": vlp.shape,
        "backbone": "small:backbone",
        "backbone_digest": backbone.digest,
        "camera": DEFAULT_CAMERA,
        "frame_size": backbone.frame_size,
    }
    save_model(folder, KIND, vlp.state_dict(), config)
    return folder


def record_episodes(path: Path, count: int, steps: int = 150) -> Path:
    """A dataset of `count` episodes of random actions, four different ones over and over."""
    rng = np.random.default_rng(0)
    env = make_env(f"metaworld/{TASK}")
    episodes = [rollout(env, uniform(rng), seed=seed, level="random", policy="uniform", max_steps=steps) for seed in range(4)]
    env.close()
    write_episodes(path, env.env_id, islice(cycle(episodes), count), {"made": "for a benchmark"})
    return path


def plan_pairs(config: AnnotateConfig, episodes: Path) -> list[tuple[Segment, Segment]]:
    """The pairs that `annotate` will label with these settings."""
    segments, pairs, _ = choose_segments(config, EpisodeStore(episodes), np.random.default_rng(config.seed))
    return [(segments[a], segments[b]) for a, b in pairs]


def time_plainly(model: Path, episodes: Path, pairs: list[tuple[Segment, Segment]]) -> float:
    """Seconds to draw, encode and score both clips of each pair, after everything is loaded."""
    torch.set_num_threads(THREADS)
    store, vlp = EpisodeStore(episodes), VLPScorer.load(model)
    clips = [clip for pair in pairs for clip in pair]
    with open_clips(store, clips, vlp) as draw:
        draw([0])  # the first picture of a renderer is slow
        started = time.perf_counter()
        for number in range(0, len(clips), 2):
            vlp.score(draw([number, number + 1]), ["close the drawer"] * 2)
        return time.perf_counter() - started


def peak_in_new_process(model: Path, episodes: Path, folder: Path) -> float:
    """Peak memory (MB) of a process that labels 40 pairs of `episodes`."""
    config = AnnotateConfig(
        out=folder / f"{episodes.name}.parquet", episodes=episodes, model=(model,), pairs=40, clips=40, threads=THREADS
    )
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_of, config).result()


def _peak_of(config: AnnotateConfig) -> float:
    labels = annotate.run(config)
    if len(read_preferences(labels)) != config.pairs:
        raise RuntimeError(f"{labels} is not complete")
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss also counts the process that started this one
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
