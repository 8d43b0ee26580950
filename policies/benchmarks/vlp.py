"""VLP training: tuples a second on cached frame features, against encoding the frames in every step.

All sides run the same loss and optimiser on the same tuples in the same process, by turns, with two threads.  The frames are
noise: no side's speed depends on what they show.

"ratio" is that of our model on cached features over the same model on frames that are encoded in every step.  Whoever freezes
an encoder knows that its features can be kept; "fair" is over a plain model that reads the same cache: the same architecture of
torch's own layers (nn.TransformerEncoderLayer, nn.MultiheadAttention, nn.Dropout), in which each clip and sentence of a step is
encoded once, too (a test compares its scores with ours).
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

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


class PlainVLP(VLP):
    """The same model of torch's own layers: dropout in all the places where they have it, attention whole."""

    def __init__(self, config: ModelConfig, frames: int, tokens_per_frame: int, image_dim: int, text_dim: int) -> None:
        super().__init__(config, frames, tokens_per_frame, image_dim, text_dim)
        layer = partial(
            nn.TransformerEncoderLayer,
            config.dim,
            config.heads,
            4 * config.dim,
            config.dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.video_self = nn.ModuleList(layer() for _ in range(config.layers))
        self.text_self = nn.ModuleList(layer() for _ in range(config.layers))
        del self.video_to_text, self.text_to_video
        self.seen, self.said = PlainCross(config), PlainCross(config)
        h1, h2 = config.hidden
        self.head = nn.Sequential(
            nn.LayerNorm(2 * config.dim),
            nn.Linear(2 * config.dim, h1),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(h1, h2),
            nn.GELU(),
            nn.Linear(h2, 1),
        )

    def encode_text(self, words: Tensor, mask: Tensor) -> Tensor:
        """As VLP's; padding is what torch's layers are told not to look at."""
        x = self.text_in(words) + self.word_order[: words.shape[1]]
        for layer in self.text_self:
            x = layer(x, src_key_padding_mask=~mask)
        return x

    def score(self, video: Tensor, text: Tensor, mask: Tensor, clips: Tensor, sentences: Tensor) -> Tensor:
        """As VLP's."""
        seen_clips, read, real = video[clips], text[sentences], mask[sentences]
        seen = self.seen(seen_clips, read, ~real).mean(1)
        said = self.said(read, seen_clips, None)
        said = (said * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        return self.head(torch.cat([seen, said], dim=1)).squeeze(1)


class PlainCross(nn.Module):
    """The tokens of one sequence look at those of another."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_x, self.norm_context = nn.LayerNorm(config.dim), nn.LayerNorm(config.dim)
        self.attention = nn.MultiheadAttention(config.dim, config.heads, config.dropout, batch_first=True)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor, padding: Tensor | None) -> Tensor:
        """x (B, X, C), context (B, Y, C), padding (B, Y) True = not to be looked at -> (B, X, C)."""
        context = self.norm_context(context)
        seen, _ = self.attention(self.norm_x(x), context, context, key_padding_mask=padding, need_weights=False)
        return x + self.drop(seen)


def run() -> dict[str, float]:
    """Measure; print a table; return {"ratio", "fair", "tuples_per_s"}."""
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
        plain = PlainVLP(ModelConfig(), FRAMES, backbone.tokens_per_frame, backbone.image_dim, backbone.text_dim)
        rng = np.random.default_rng(0)
        optimizers = {}
        for each in (model, plain):
            standardise(each, cached)
            optimizers[each] = torch.optim.AdamW(each.parameters(), config.lr, fused=True)

        def seconds(trained: VLP, features: Stacked, steps: int) -> float:
            started = time.perf_counter()
            for _ in range(steps):
                loss, _ = training_loss(trained, features, sampler, texts, config, rng, ranks)
                descend(loss, trained, optimizers[trained], ranks)
            return (time.perf_counter() - started) / steps

        each_time: Stacked = EncodedEachTime(bank, backbone)  # type: ignore[assignment]
        sides = [(model, cached, CACHED_STEPS), (model, each_time, 1), (plain, cached, CACHED_STEPS)]
        times = np.array([[seconds(*side) for side in sides] for _ in range(1 + ROUNDS)])[1:]  # nobody pays for first calls
    fast, encoded, plainly = (float(rate) for rate in config.batch / np.median(times, axis=0))
    table = Table(title=f"VLP training, {config.batch} tuples a step")
    for name in ("features", "tuples/s"):
        table.add_column(name, justify="right")
    table.add_row("encoded in every step", f"{encoded:.1f}")
    table.add_row("cached, model of torch's layers", f"{plainly:.1f}")
    table.add_row("cached", f"{fast:.1f}")
    Console().print(table)
    return {"ratio": round(fast / encoded, 1), "fair": round(fast / plainly, 2), "tuples_per_s": round(fast, 1)}


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
