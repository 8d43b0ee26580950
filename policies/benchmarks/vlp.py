"""VLP training: tuples a second on cached frame features, against encoding the frames in every step.

Both sides run the same loss, optimiser and model on the same tuples in the same process, by turns.  The frames are noise:
neither side's speed depends on what they show.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from robopref.configs.vlp import ModelConfig, TrainVLPConfig
from robopref.datasets.clips import FRAMES, FrameBank, Stacked
from robopref.embodied.tasks import SPLITS
from robopref.preference.features import cached_features
from robopref.preference.orders import LEVELS, OrderSampler
from robopref.preference.ranks import Ranks
from robopref.preference.small import SmallBackbone, SmallConfig, SmallEncoder
from robopref.preference.train import TextTable, descend, standardise, training_loss
from robopref.preference.vlp import VLP

TASKS = SPLITS["paper"].train[:8]
EPISODES, LENGTH = 4, 16  # episodes a task and level, frames an episode
ROUNDS, CACHED_STEPS = 4, 8  # a round: this many steps on the cache, one step that encodes


class EncodedEachTime:
    """Looks like the cache, but encodes the frames that are asked for when they are asked for."""

    def __init__(self, bank: FrameBank, backbone: SmallBackbone) -> None:
        self._bank, self._backbone = bank, backbone

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        frames = self._bank.frames(rows.ravel())
        return self._backbone.encode_frames(frames).numpy().reshape(*rows.shape, self._backbone.tokens_per_frame, -1)


def run() -> dict[str, float]:
    """Measure; print a table; return {"ratio", "tuples_per_s"}."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as made:
        bank = noise_bank(Path(made))
        SmallBackbone.save(Path(made) / "backbone", SmallEncoder(SmallConfig()))
        backbone = SmallBackbone.load(Path(made) / "backbone")
        cached = cached_features(bank, backbone, Path(made) / "cache")
        config = TrainVLPConfig()
        sampler = OrderSampler(bank.index, TASKS, config.orders)
        texts = TextTable(sampler, backbone, torch.device("cpu"))
        ranks = Ranks("cpu")
        model = VLP(ModelConfig(), FRAMES, backbone.tokens_per_frame, backbone.image_dim, backbone.text_dim)
        standardise(model, cached)
        optimizer = torch.optim.AdamW(model.parameters(), config.lr, fused=True)
        rng = np.random.default_rng(0)

        def seconds(features: Stacked, steps: int) -> float:
            started = time.perf_counter()
            for _ in range(steps):
                loss, _ = training_loss(model, features, sampler, texts, config, rng, ranks)
                descend(loss, model, optimizer, ranks)
            return (time.perf_counter() - started) / steps

        each_time: Stacked = EncodedEachTime(bank, backbone)  # type: ignore[assignment]
        seconds(cached, 2), seconds(each_time, 1)  # neither side pays for first calls
        times = np.array([[seconds(cached, CACHED_STEPS), seconds(each_time, 1)] for _ in range(ROUNDS)])
    fast, plain = config.batch / np.median(times, axis=0)
    table = Table(title=f"VLP training, {config.batch} tuples a step")
    for name in ("features", "tuples/s"):
        table.add_column(name, justify="right")
    table.add_row("encoded in every step", f"{plain:.1f}")
    table.add_row("cached", f"{fast:.1f}")
    Console().print(table)
    return {"ratio": round(float(fast / plain), 1), "tuples_per_s": round(float(fast), 1)}


def noise_bank(folder: Path) -> FrameBank:
    """A frame bank of 64 px noise with every task and level of the benchmark."""
    rng = np.random.default_rng(0)
    for task in TASKS:
        rows = [
            {"task": task, "level": level, "episode": EPISODES * rank + episode, "step": 7 * frame, "length": 7 * LENGTH}
            for rank, level in enumerate(LEVELS)
            for episode in range(EPISODES)
            for frame in range(LENGTH)
        ]
        (folder / task).mkdir()
        pd.DataFrame(rows).assign(success_step=-1, camera="corner2-zoom").to_parquet(folder / task / "index.parquet")
        np.save(folder / task / "frames.npy", rng.integers(0, 256, (len(rows), 64, 64, 3), dtype=np.uint8))
        np.save(folder / task / "states.npy", rng.standard_normal((len(rows), 39)).astype(np.float32))
    return FrameBank([folder / task for task in TASKS])
