"""Annotation: clips labelled a second by `robopref annotate`, and what it is worth that a pair's clips are not encoded anew.

1,000 pairs over 200 clips: a clip is in 10 pairs ("reuse"); the command of README makes 100 pairs of 200 clips, where each is in
one.  "ratio" is that of pairs a second against a loop that draws and encodes both clips of every pair anew, and grows with the
reuse.  That side is ours but for the reuse, is given its environment, renderer and model for free and is timed on a sample of the
pairs, half before and half after.

"fair" does not depend on the reuse: both sides draw, encode and score each of the same clips once.  The peer
(annotate_peer.py) is a plain script with one kept environment and gymnasium's renderer, at our quality or below (ours averages
2 x 2 pixels), a clip at a time; batches are hardly quicker on a processor.  Either side is a command that is started anew
and timed to its end, imports, loading and writing included; ours also measures its labels against the true return.  Both have two
cores: one process with two threads or two processes with one, and the faster counts; with two, the peer forks once it has
imported everything.  They take turns.

Memory is the peak of a process of its own and its workers, with few episodes and with ten times as many.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.checkpoint import save_model
from robopref.configs.memory import PeakMemory
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
SAMPLE = 60  # pairs that the side without reuse is timed on
FEW, MANY = 12, 120  # episodes of the memory check
ROUNDS = 3
WAYS = {"one process, two threads": (1, 2), "two processes": (2, 1)}  # processes and threads of either side
PEER = "robopref.policies.benchmarks.annotate_peer"
COMMAND = "import sys; from robopref.configs.cli import main; sys.exit(main())"


def run(model: Path | None = None) -> dict[str, float]:
    """Measure; print a table; return {"ratio", "fair", "reuse", "clips_per_s", "peak_mb"}.

    model: VLP run folder, or None for an untrained one.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model = model or untrained_vlp(folder / "vlp")
        few, many = (record_episodes(folder / f"{count}", count) for count in (FEW, MANY))
        config = AnnotateConfig(out=folder / "once.parquet", episodes=many, model=(model,), pairs=PAIRS, clips=CLIPS)
        plan = plan_pairs(config, many)
        clips = len({clip for pair in plan for clip in pair})
        before = time_anew(model, many, plan[: SAMPLE // 2])
        seconds: dict[tuple[str, str], list[float]] = {}
        for number in range(ROUNDS):
            for way, (processes, threads) in WAYS.items():
                settings = replace(config, processes=processes, threads=threads)
                commands = {
                    "robopref annotate": ours(settings, folder / f"{number}-{processes}.parquet"),
                    "plain script": plain(settings, folder / "plain.npz"),
                }
                for side, words in commands.items():
                    seconds.setdefault((side, way), []).append(time_command(words))
        after = time_anew(model, many, plan[SAMPLE // 2 : SAMPLE])
        peaks = {count: peak_in_new_process(model, path, folder) for count, path in ((FEW, few), (MANY, many))}

    medians = {key: float(np.median(values)) for key, values in seconds.items()}
    best = {name: min(value for (side, _), value in medians.items() if side == name) for name, _ in medians}
    once, script, anew = best["robopref annotate"], best["plain script"], (before + after) / SAMPLE * PAIRS
    reuse = 2 * PAIRS / clips
    table = Table(title=f"{PAIRS} pairs over {clips} clips of {TASK}: a clip is in {reuse:.1f} pairs")
    for name in ("side", "with", "seconds", "clips/s", "pairs/s"):
        table.add_column(name, justify="left" if name in ("side", "with") else "right")
    for (side, way), value in medians.items():
        table.add_row(side, way, f"{value:.1f}", f"{clips / value:.1f}", f"{PAIRS / value:.1f}")
    table.add_row("both clips of a pair anew", f"{SAMPLE} pairs, no start", f"{before + after:.1f}", "", f"{PAIRS / anew:.1f}")
    Console().print(table)
    print(f"peak memory: {peaks[FEW]:.0f} MB with {FEW} episodes, {peaks[MANY]:.0f} MB with {MANY}")
    return {
        "ratio": round(anew / once, 1),
        "fair": round(script / once, 2),
        "reuse": round(reuse, 1),
        "clips_per_s": round(clips / once, 1),
        "peak_mb": round(peaks[MANY]),
    }


def ours(config: AnnotateConfig, out: Path) -> list[str]:
    """The words of the command with these settings."""
    words = {"out": out, "episodes": config.episodes, "model": config.model[0], "pairs": config.pairs, "clips": config.clips}
    words |= {"processes": config.processes, "threads": config.threads}
    return ["-c", COMMAND, "annotate", *(word for name, value in words.items() for word in (f"--{name}", str(value)))]


def plain(config: AnnotateConfig, out: Path) -> list[str]:
    """The words of the peer."""
    settings = {"episodes": str(config.episodes), "model": [str(folder) for folder in config.model], "pairs": config.pairs}
    settings |= {"clips": config.clips, "processes": config.processes, "threads": config.threads}
    return ["-m", PEER, json.dumps(settings), str(out)]


def time_command(words: list[str]) -> float:
    """Seconds of a command of this Python, from its start to its end."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise RuntimeError(f"{words} failed: {done.stderr}")
    return seconds


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


def time_anew(model: Path, episodes: Path, pairs: list[tuple[Segment, Segment]]) -> float:
    """Seconds to draw, encode and score both clips of each pair, after everything is loaded."""
    torch.set_num_threads(1)
    store, vlp = EpisodeStore(episodes), VLPScorer.load(model)
    clips = [clip for pair in pairs for clip in pair]
    with open_clips(store, clips, vlp) as draw:
        draw([0])  # the first picture of a renderer is slow
        started = time.perf_counter()
        for number in range(0, len(clips), 2):
            vlp.score(draw([number, number + 1]), ["close the drawer"] * 2)
        return time.perf_counter() - started


def peak_in_new_process(model: Path, episodes: Path, folder: Path) -> float:
    """Peak memory (MB) of a process that labels pairs of `episodes`, each clip in one, and of its workers."""
    out = folder / f"{episodes.name}.parquet"
    config = AnnotateConfig(out=out, episodes=episodes, model=(model,), pairs=CLIPS // 2, clips=CLIPS, threads=1)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_of, config).result()


def _peak_of(config: AnnotateConfig) -> float:
    with PeakMemory(0.2) as peak:
        labels = annotate.run(config)
    if len(read_preferences(labels)) != config.pairs:
        raise RuntimeError(f"{labels} is not complete")
    return peak.mb
