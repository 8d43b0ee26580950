"""Frame banks of a toy world: a square climbs with the level, its column and colour say which task it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from robopref.configs.files import write_json
from robopref.embodied.parts import BACKGROUND

COLOURS = ((255, 255, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255))


def make_banks(folder: Path, tasks: Sequence[str], episodes: int = 4) -> Path:
    """Banks of `episodes` episodes a level of ten frames, 70 steps long, one folder a task; returns `folder`."""
    rng = np.random.default_rng(0)
    for column, task in enumerate(tasks):
        rows, frames, states, parts = [], [], [], []
        for rank, level in enumerate(("random", "medium", "expert")):
            for episode in range(episodes):
                for step in range(10):
                    height = rank * step / 9 / 2 + rng.uniform(0, 0.02)  # of the picture
                    frame = rng.integers(0, 40, (64, 64, 3), dtype=np.uint8)
                    top, left = int(52 * (1 - height)), 20 * column % 60
                    frame[top : top + 10, left : left + 10] = COLOURS[column % len(COLOURS)]
                    if step in (0, 9):
                        parts.append((len(frames), np.zeros((64, 64), np.uint8)))
                        parts[-1][1][top : top + 10, left : left + 10] = 1
                    frames.append(frame)
                    states.append(np.r_[np.tile([left / 64, height], 9), np.zeros(21)])
                    number = episodes * rank + episode
                    rows.append({"task": task, "level": level, "episode": number, "step": 7 * step, "length": 70})
        (folder / task).mkdir(parents=True)
        pd.DataFrame(rows).assign(success_step=-1, camera="corner2-zoom").to_parquet(folder / task / "index.parquet")
        np.save(folder / task / "frames.npy", np.stack(frames))
        np.save(folder / task / "states.npy", np.stack(states).astype(np.float32))
        np.save(folder / task / "parts.npy", np.stack([mask for _, mask in parts]))
        said = {"names": [BACKGROUND, f"square-{column % len(COLOURS)}"], "rows": [row for row, _ in parts]}
        write_json(folder / task / "parts.json", said)
    return folder
